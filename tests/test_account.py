"""What a method's fit has cost, where methods share values: each value once, whoever built it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import ocd_bench.account
from ocd_bench.account import Account
from tests.toy import ToyClasses, make_context


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def passes(self, seconds: float, value: str = "value") -> str:
        self.now += seconds
        return value


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ocd_bench.account.time, "perf_counter", lambda: clock.now)
    return clock


def test_what_a_method_built_itself_is_never_charged(clock: Clock) -> None:
    context = make_context(ToyClasses())
    for _ in range(3):
        assert context.shared("bank", lambda: clock.passes(5.0, "a bank")) == "a bank"
    assert (clock.now, context.account.charges) == (5.0, 0.0)


def test_each_value_of_other_methods_is_charged_once_with_what_it_was_built_from(clock: Clock) -> None:
    first = make_context(ToyClasses())

    def fit() -> str:
        first.shared("bank", lambda: clock.passes(5.0))
        first.shared("bank", lambda: clock.passes(5.0))
        return clock.passes(2.0)

    first.shared("fit", fit)
    second = replace(first, account=Account())
    second.shared("bank", lambda: clock.passes(100.0))
    assert second.account.charges == 5.0
    second.shared("fit", lambda: clock.passes(100.0))
    assert second.account.charges == 7.0
    third = replace(first, account=Account())
    third.shared("fit", lambda: clock.passes(100.0))
    third.shared("bank", lambda: clock.passes(100.0))
    assert (third.account.charges, first.account.charges, clock.now) == (7.0, 0.0, 7.0)


def test_a_value_built_from_those_of_others_passes_their_cost_on(clock: Clock) -> None:
    first = make_context(ToyClasses())
    first.shared("bank", lambda: clock.passes(5.0))
    second = replace(first, account=Account())

    def fit() -> str:
        second.shared("bank", lambda: clock.passes(100.0))
        return clock.passes(2.0)

    second.shared("fit", fit)
    assert second.account.charges == 5.0
    third = replace(first, account=Account())
    third.shared("fit", lambda: clock.passes(100.0))
    assert third.account.charges == 7.0


def test_work_of_killed_processes_belongs_to_the_value_that_continued_it(clock: Clock) -> None:
    first = make_context(ToyClasses())

    def bank() -> str:
        first.account.resume(50.0)
        return clock.passes(5.0)

    first.shared("bank", bank)
    assert (first.account.charges, first.account.resumed) == (0.0, 50.0)
    second = replace(first, account=Account())
    second.shared("bank", lambda: clock.passes(100.0))
    assert (second.account.charges, second.account.resumed) == (55.0, 0.0)


def test_a_build_that_fails_leaves_the_account_in_order(clock: Clock) -> None:
    context = make_context(ToyClasses())

    def fails() -> str:
        clock.passes(3.0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        context.shared("outer", lambda: context.shared("inner", fails))

    def without() -> str:
        with pytest.raises(ValueError, match="no"):
            context.shared("inner", fails)
        return clock.passes(1.0)

    context.shared("outer", without)
    other = replace(context, account=Account())
    other.shared("outer", lambda: clock.passes(100.0))
    assert other.account.charges == 4.0  # with the seconds of the attempt


def test_a_long_chain_of_values_is_charged_at_once(clock: Clock) -> None:
    first = make_context(ToyClasses())

    def build(level: int) -> str:
        for _ in range(4):  # without memory of what is counted: 4 ** 20 visits
            if level:
                first.shared(level - 1, lambda: build(level - 1))
        return clock.passes(1.0)

    first.shared(20, lambda: build(20))
    second = replace(first, account=Account())
    second.shared(20, lambda: clock.passes(100.0))
    assert second.account.charges == 21.0
