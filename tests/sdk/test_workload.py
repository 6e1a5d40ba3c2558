"""Load, response times and counts, with time as an argument."""

from __future__ import annotations

from agentd.sdk.workload import Workload, quantile


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(concurrency: int) -> tuple[Workload, Time]:
    time = Time()
    return Workload(concurrency, lambda: None, time), time


def test_load_is_the_time_weighted_mean_over_the_window() -> None:
    workload, time = make(2)
    workload.begin()  # 0.5 for four seconds
    time.now += 4
    workload.begin()  # 1.0 for one
    time.now += 1
    report = workload.report(10.0)
    assert report.load == (4 * 0.5 + 1 * 1.0) / 5
    assert (report.in_flight, report.queue_length, report.tasks_completed) == (2, 0, 0)


def test_the_window_forgets_what_is_older() -> None:
    workload, time = make(1)
    workload.begin()
    time.now += 30
    assert workload.report(10.0).load == 1.0
    workload.end(100.0)
    time.now += 5
    assert workload.report(10.0).load == 0.5
    time.now += 5
    assert workload.report(10.0).load == 0.0


def test_frequent_reports_do_not_shorten_the_window() -> None:
    workload, time = make(1)
    workload.begin()
    for _ in range(5):
        time.now += 1
        workload.report(10.0)
    workload.end(100.0)
    for _ in range(5):
        time.now += 1
        report = workload.report(10.0)
    assert report.load == 0.5


def test_waiting_tasks_count_as_load_up_to_one() -> None:
    workload, time = make(4)
    workload.set_queue_length(2)
    time.now += 1
    assert workload.report(1.0).load == 0.5
    workload.set_queue_length(200)
    time.now += 1
    assert workload.report(1.0).load == 1.0


def test_a_report_at_once_tells_the_present_level() -> None:
    workload, _time = make(2)
    workload.begin()
    assert workload.report(10.0).load == 0.5


def test_a_given_load_is_told_until_it_is_taken_back() -> None:
    workload, time = make(1)
    workload.set_load(0.3)
    time.now += 1
    assert workload.report(10.0).load == 0.3
    workload.set_load(None)
    assert workload.report(10.0).load == 0.0


def test_response_times_are_those_of_the_window() -> None:
    workload, time = make(1)
    for took in (9.0, 1.0, 2.0, 3.0, 4.0):
        workload.begin()
        since, time.now = time.now, time.now + took
        workload.end(since)
        report = workload.report(10.0)
    assert (report.response_time_p50_s, report.response_time_p95_s) == (2.0, 4.0)
    time.now += 10
    report = workload.report(10.0)
    assert (report.response_time_p50_s, report.response_time_p95_s) == (None, None)
    assert report.tasks_completed == 5


def test_a_late_report_tells_all_that_was_done_since_the_one_before() -> None:
    workload, time = make(1)
    workload.report(10.0)
    workload.begin()
    time.now += 5
    workload.end(time.now - 5)
    time.now += 15
    late = workload.report(10.0)
    assert (late.response_time_p50_s, late.load) == (5.0, 0.25)
    time.now += 10
    assert workload.report(10.0).response_time_p50_s is None


def test_a_response_time_counts_from_when_the_task_was_accepted() -> None:
    workload, time = make(1)
    accepted, time.now = time.now, time.now + 5
    workload.begin()
    time.now += 1
    workload.end(accepted)
    assert workload.report(10.0).response_time_p50_s == 6.0


def test_memory_is_bounded_however_many_tasks_there_are() -> None:
    workload, time = make(1)
    for _ in range(5_000):
        workload.begin()
        time.now += 0.001
        workload.end(time.now - 0.001)
        workload.report(1000.0)
    assert len(workload._spans) <= 64
    assert len(workload._finished) <= 512
    assert 0.0 <= workload.report(1000.0).load <= 1.0


def test_quantiles_are_nearest_rank() -> None:
    assert quantile([], 0.5) is None
    assert quantile([1.0], 0.95) == 1.0
    assert quantile([float(n) for n in range(1, 101)], 0.95) == 95.0
