"""What a trigger has wanted lately, by which it is steadied: down to the most, up to the least of a window of time."""

from __future__ import annotations

from msgspec import Struct, field


class Recent(Struct):
    """Wishes as (time, count), oldest first, without those that a later one has overtaken.

    Invariant: counts fall along `highs` and rise along `lows`; the last of both is the newest wish.
    """

    highs: list[tuple[float, int]] = field(default_factory=list)
    lows: list[tuple[float, int]] = field(default_factory=list)

    def note(self, wanted: int, current: int, now: float, *, up_window_s: float, down_window_s: float) -> bool:
        """Remember `wanted`; whether that holds the pool where what was remembered before would not.

        Where nothing is known of the window, nobody knows that less than `current` would have done: so it does no harm
        to have forgotten what did not hold it.
        """
        before = self.highs[:1], self.lows[:1]
        self.highs = [each for each in self.highs if each[0] > now - down_window_s]
        self.lows = [each for each in self.lows if each[0] > now - up_window_s]
        for kept, window_s, sign in ((self.highs, down_window_s, 1), (self.lows, up_window_s, -1)):
            if window_s <= 0.0:
                continue
            for count in (wanted,) if kept else (current, wanted):
                while kept and sign * kept[-1][1] <= sign * count:
                    kept.pop()
                kept.append((now, count))
        (most, least), (more, fewer) = before, (self.highs[:1], self.lows[:1])
        return [n for _, n in more] > [n for _, n in most] or [-n for _, n in fewer] > [-n for _, n in least]

    def steadied(
        self, wanted: int, current: int, now: float, *, up_window_s: float, down_window_s: float
    ) -> tuple[int, float]:  # fmt: skip
        """`wanted` held by the windows, and how long ago what holds it was wanted."""
        if wanted < current:
            highs = [each for each in self.highs if each[0] > now - down_window_s]
            at, most = max(highs, key=lambda each: (each[1], each[0]), default=(now, wanted))
            held = min(current, max(wanted, most))
        else:
            lows = [each for each in self.lows if each[0] > now - up_window_s]
            at, least = min(lows, key=lambda each: (each[1], -each[0]), default=(now, wanted))
            held = max(current, min(wanted, least))
        return held, now - at
