from __future__ import annotations

import asyncio
import threading

from agentd.sdk import Latch


def test_threads_and_coroutines_see_the_same_moment() -> None:
    async def program() -> None:
        latch = Latch()
        waiting = [asyncio.create_task(latch.wait_async()) for _ in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=latch.set).start()
        await asyncio.gather(*waiting)
        assert latch.is_set()
        assert latch.wait(0)
        await latch.wait_async()

    asyncio.run(program())


def test_only_the_first_set_changes_it() -> None:
    latch = Latch()
    assert not latch.wait(0)
    assert [latch.set(), latch.set()] == [True, False]


def test_setting_it_after_a_waiting_loop_has_ended_is_no_error() -> None:
    latch = Latch()

    async def give_up() -> None:
        waiting = asyncio.create_task(latch.wait_async())
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(give_up())
    assert latch.set()
