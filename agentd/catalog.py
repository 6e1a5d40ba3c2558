"""The journal's number for each kind of record, by which `journalctl MESSAGE_ID=...` and the catalog find it.

Owns the table. A number never changes and is never used again, whatever becomes of its kind: people's alerts match it.
What each means and what to do about it is in packaging/agentd.catalog, which `journalctl -x` shows.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentd.core.messages import EventType

MESSAGE_IDS: Mapping[EventType, str] = {
    EventType.SCALE_UP: "3a877af3f99c47ce8e3ce9e2e249c1e7",
    EventType.SCALE_DOWN: "a5988aae77194b7082deb5c175d08187",
    EventType.REPLACE: "199bda47c6164f3a8a8595b1def44143",
    EventType.START: "d603ccd9ef9549c99a784349a38a8c13",
    EventType.READY: "f35c448f19404473bafa3ef92ea4ea35",
    EventType.EXIT: "e00ce08b11b74f21865955e045e55804",
    EventType.OOM_KILL: "942a515f27d843e09462af10735208ad",
    EventType.RESTART: "ee656856ddf64af6b82a893244ed1acb",
    EventType.ROLLING_BEGUN: "9fae5b6d84a54c9ca8ed133cbb6eb1e1",
    EventType.ROLLING_STEP: "f12e62544af64d6484dc5c2ab92d180b",
    EventType.ROLLING_DONE: "823e4654dc9a49e387228752d7c50c3b",
    EventType.ROLLING_STOPPED: "31f5f11d3a7a4d7a8b3d8b0c76903793",
    EventType.ROLLING_CANCELLED: "71b7c4ee04ba485e9bfeda084f7aaac2",
    EventType.START_FAILED: "030eae82027444e88fdcac150d162603",
    EventType.CRASH_LOOP: "10ddeead364d452c802205d2faa2dcfb",
    EventType.LATE: "5e147232398a49bfa802d6b021afeed8",
    EventType.RECOVERED: "1df93e0dbcb24d9bbb614ef792999ddf",
    EventType.DRAIN: "89d06701aa064142ac77f284795c7b05",
    EventType.RESUME: "0eac2fbc481541f189c7a65dff3c171a",
    EventType.CONFIGURE: "0d2bc2a50a7841b1aff59237229add10",
    EventType.STOP: "5be2b75ad12c441d81efd804cc03dc15",
    EventType.STOP_FORCED: "863ddded4c02437195ae6c20d89cbe31",
    EventType.ADOPT: "1dad56c9e8c14bc1a4775ef9dd161fb3",
    EventType.VANISHED: "1e04a6896b124976bfcfbecef3f2d171",
    EventType.HELD: "3d75188a9c13478dbe6078817bbb493b",
    EventType.RESUMED: "5c082b354b384652bb762b094ccc5b00",
    EventType.WARNING: "e791453d93bf483cb8e38bdafaeff69a",
    EventType.HOST_STOPPING: "9324e1c755224d658dd056fa9f4e5d28",
    EventType.HOLD: "f8140ba59b6b4561be0aa774f89ff01a",
    EventType.EFFECT: "5f0b6d1c3e6a4b0e9b6f0c2f4d7a81e3",
    EventType.PORT_CONFLICT: "d7d2a2dbb1a74ed49c5e2c4fbd38da2e",
    EventType.TARGET: "28bc8e16bf914620afe7385169b5229e",
    EventType.TARGET_EXPIRED: "8000086f92194fb79d14a887d933e7d9",
    EventType.OFFER: "85d35ceab6dd481aa4637575b0018cfb",
    EventType.OFFER_EXPIRED: "07964724f9fb4157bbbbfee2db65e5a2",
    EventType.SCHEDULE: "ad214dd6317e4dd7a977eab221264ad6",
    EventType.AUTOSCALING: "ca241c2bb1f6459381eec05c6294732b",
    EventType.CONFIG: "b95aa34040824d96868e7833d640016e",
    EventType.CONFIG_REJECTED: "895cdedf6b30409dbb922918d7af1c7c",
    EventType.AGENTD_START: "cc3ec033c5ac48a8a0ef3d86127c8920",
    EventType.AGENTD_STOP: "4874df5cfad74ebab3e5dfcf559ffa14",
    EventType.STORE: "877a57314e2d409e81b9780ebfa1415e",
}
