"""The system bus, as far as the driver needs it: calls of systemd, and hints that something has changed.

Owns the connection: it is made again, for ever, when it is lost, and calls wait a while for that. Knows the names of
systemd's interfaces; decides nothing and remembers no unit.

Every call is one that may be made twice (the driver makes no other), so one whose answer was lost, because the bus or
systemd itself was started anew, is simply made again.

At most CALLS_MAX calls wait for an answer at a time: dbus-daemon refuses the 129th of a connection, and dbus-fast loses
the connection when the socket's buffer is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from dbus_fast import BusType, DBusError, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError
from msgspec import Struct

import agentd.log

CALLS_MAX = 64
REPLY_S = 30.0
"""How long an answer is waited for. systemd answers nothing while it reloads, which takes seconds at worst."""

AWAY_S = 10.0
"""How long a call waits for a bus, or a systemd, that is away."""

RETRY_S = 0.1
RETRY_S_MAX = 5.0

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = f"{SYSTEMD}.Manager"
UNIT = f"{SYSTEMD}.Unit"
SERVICE = f"{SYSTEMD}.Service"
SLICE = f"{SYSTEMD}.Slice"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = "org.freedesktop.DBus"
_ROOT = "/org/freedesktop/systemd1"
_UNITS = f"{_ROOT}/unit/"

# Only these: systemd tells of every unit it loads or forgets too, a dozen signals for each start.
_RULES = (
    f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'",
    f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='Reloading'",
    f"type='signal',sender='{SYSTEMD}',interface='{_PROPERTIES}',member='PropertiesChanged',arg0='{UNIT}'",
    f"type='signal',sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'",
)
# Nobody answered, or somebody on the way out did: another attempt may find systemd.
_AWAY = frozenset(
    f"{_BUS}.Error.{name}" for name in ("NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected", "Timeout")
) | {f"{SYSTEMD}.ShuttingDown"}

log = agentd.log.get("driver")


class BusError(OSError):
    """systemd or the bus refused a call. `name` is the D-Bus name of the error; the text is theirs."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        super().__init__(text)


class BusAway(BusError):
    """Nobody answers at the moment; the same call can be made again later."""

    def __init__(self, text: str) -> None:
        super().__init__("", text)


class UnitRow(Struct, frozen=True):
    """One unit as systemd lists it. `job`: what is queued for it ("start", "stop", ...), "" for nothing."""

    name: str
    active: str
    sub: str
    job: str


class Hints(Protocol):
    """Who wants to know that something may have changed."""

    def unit_changed(self, unit: str, active: str, sub: str, incarnation: str) -> None: ...
    def job_ended(self, unit: str, job: str, result: str) -> None: ...
    def all_may_have_changed(self) -> None:
        """systemd or the bus began anew, or signals may be missing: look at everything."""


class SystemdBus:
    """The connection. `address` None: the system bus of this host. Use it from one event loop."""

    def __init__(self, address: str | None, hints: Hints) -> None:
        self._address = address
        self._hints = hints
        self._slots = asyncio.Semaphore(CALLS_MAX)
        self._bus: MessageBus | None = None
        self._lost: asyncio.Future[None] | None = None  # resolved, with whatever exception, when the connection ends
        self._connected = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._trouble = ""

    async def open(self) -> None:
        """Connect.

        Raises:
            BusAway: there is no bus, or no systemd on it.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + AWAY_S
        while not self._connected.is_set():
            try:
                await self._connect()
            except BusError as error:
                # The bus is there; systemd may be about to return to it from an execution of itself.
                if error.name not in _AWAY or loop.time() >= deadline:
                    raise
                await asyncio.sleep(RETRY_S)
        self._keeping = asyncio.create_task(self._keep(), name="system bus")

    async def close(self) -> None:
        """Disconnect; calls that wait fail."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait((self._keeping,))
        if self._bus is not None and self._lost is not None:
            self._bus.disconnect()
            await asyncio.wait((self._lost,), timeout=RETRY_S)
            self._bus = None

    # -- calls ----------------------------------------------------------------------------------

    async def manager(self, member: str, signature: str = "", *arguments: Any) -> Any:
        """Call a method of systemd's manager; its first result, None where it has none.

        Raises:
            BusAway: nobody answered for AWAY_S or longer.
            BusError: the call was refused.
        """
        return await self._ask(_ROOT, MANAGER, member, signature, arguments)

    async def get(self, unit: str, interface: str, name: str) -> Any:
        """One property of a unit, or (unit "") of the manager. Raises what `manager` does."""
        path = object_path(unit) if unit else _ROOT
        return (await self._ask(path, _PROPERTIES, "Get", "ss", (interface, name))).value

    async def get_all(self, unit: str, interface: str) -> dict[str, Any]:
        """All properties of one interface of a unit, as they were at one moment. Raises what `manager` does."""
        values = await self._ask(object_path(unit), _PROPERTIES, "GetAll", "s", (interface,))
        return {name: variant.value for name, variant in values.items()}

    async def units(self, patterns: Iterable[str]) -> list[UnitRow]:
        """The units that systemd has loaded and whose names match. Raises what `manager` does."""
        rows = await self.manager("ListUnitsByPatterns", "asas", [], list(patterns))
        return [UnitRow(name=row[0], active=row[3], sub=row[4], job=row[8]) for row in rows]

    async def _ask(self, path: str, interface: str, member: str, signature: str, arguments: tuple[Any, ...]) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + AWAY_S
        while True:
            async with self._slots:
                bus = await self._connection(deadline)
                # A message is sent once: it has a serial number.
                message = Message(SYSTEMD, path, interface, member, signature=signature, body=list(arguments))
                reply, trouble = await _sent(bus, message)
            if reply is not None and reply.message_type is not MessageType.ERROR:
                return reply.body[0] if reply.body else None
            if reply is not None:
                name = reply.error_name or ""
                text = str(reply.body[0]) if reply.body else name
                if name not in _AWAY:
                    raise BusError(name, text)
                trouble = text
            if loop.time() >= deadline:
                raise BusAway(f"systemd does not answer: {trouble}")
            await asyncio.sleep(RETRY_S)

    async def _connection(self, deadline: float) -> MessageBus:
        if not self._connected.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._connected.wait()
            except TimeoutError:
                raise BusAway(f"the system bus cannot be reached: {self._trouble}") from None
        assert self._bus is not None
        return self._bus

    # -- the connection -------------------------------------------------------------------------

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(AWAY_S):
                bus = await MessageBus(bus_address=self._address, bus_type=BusType.SYSTEM).connect()
        except (OSError, EOFError, AuthError, DBusError) as error:  # OSError: a timeout too
            raise BusAway(str(error) or type(error).__name__) from error
        try:
            bus.add_message_handler(self._hear)
            for rule in _RULES:
                await _told(bus, Message(_BUS, "/org/freedesktop/DBus", _BUS, "AddMatch", signature="s", body=[rule]))
            await self._subscribe(bus)
        except BaseException:
            bus.disconnect()
            raise
        self._bus = bus
        self._lost = asyncio.ensure_future(bus.wait_for_disconnect())  # type: ignore[no-untyped-call]
        self._connected.set()

    async def _subscribe(self, bus: MessageBus) -> None:
        """Without this systemd sends no signals."""
        try:
            await _told(bus, Message(SYSTEMD, _ROOT, MANAGER, "Subscribe"))
        except BusError as error:
            if error.name != f"{SYSTEMD}.AlreadySubscribed":
                raise

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost."""
        while True:
            assert self._lost is not None
            await asyncio.wait((self._lost,))
            self._connected.clear()
            self._trouble = str(self._lost.exception() or "") or "connection lost"
            log.warning("the system bus is away", cause=self._trouble)
            delay_s = RETRY_S
            while not self._connected.is_set():
                try:
                    await self._connect()
                except BusError as error:
                    self._trouble = str(error)
                    await asyncio.sleep(delay_s)
                    delay_s = min(RETRY_S_MAX, delay_s * 2)
            log.info("the system bus is back")
            self._hints.all_may_have_changed()

    def _hear(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        match message.member:
            case "PropertiesChanged" if (unit := unit_at(message.path or "")) and message.body[0] == UNIT:
                changed = {name: variant.value for name, variant in message.body[1].items()}
                self._hints.unit_changed(
                    unit,
                    changed.get("ActiveState", ""),
                    changed.get("SubState", ""),
                    bytes(changed.get("InvocationID", b"")).hex(),
                )
            case "JobRemoved":
                _, job, unit, result = message.body
                self._hints.job_ended(unit, job, result)
            case "Reloading" if not message.body[0]:
                self._hints.all_may_have_changed()
            case "NameOwnerChanged" if message.body[0] == SYSTEMD and message.body[2]:
                self._hints.all_may_have_changed()


def object_path(unit: str) -> str:
    """The object of `unit`: all but ASCII letters and digits stand as _XX."""
    return _UNITS + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):02x}" for c in unit)


def unit_at(path: str) -> str:
    """The unit of an object, "" where it is none. Names are ASCII."""
    if not path.startswith(_UNITS):
        return ""
    first, *rest = path.removeprefix(_UNITS).split("_")
    return first + "".join(chr(int(part[:2], 16)) + part[2:] for part in rest)


async def _sent(bus: MessageBus, message: Message) -> tuple[Message | None, str]:
    """The reply to `message`, or None and why there is none."""
    if not bus.connected:
        return None, "connection lost"
    try:
        async with asyncio.timeout(REPLY_S):
            return await bus.call(message), "connection closed"
    except TimeoutError:
        return None, f"no answer within {REPLY_S:g} s"
    except (OSError, EOFError, DBusError) as error:
        return None, str(error) or "connection lost"


async def _told(bus: MessageBus, message: Message) -> None:
    """Send `message` once.

    Raises:
        BusError: it was refused, or nobody answered.
    """
    reply, trouble = await _sent(bus, message)
    if reply is None:
        raise BusAway(trouble)
    if reply.message_type is MessageType.ERROR:
        raise BusError(reply.error_name or "", str(reply.body[0]) if reply.body else "")
