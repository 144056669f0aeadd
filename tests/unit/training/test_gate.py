from __future__ import annotations

import pytest

from tidemill.definitions.catalog import Gate
from tidemill.errors import DefinitionError, NotDefinedError
from tidemill_training.gate import Opponent, decide, gate_metrics

AT_LEAST = Gate(kind="at_least", metric="roc_auc", value=0.68)
AT_MOST = Gate(kind="at_most", metric="log_loss", value=0.5)
NOT_WORSE = Gate(kind="not_worse_than_champion", metric="average_precision", value=0.005)
LOSS_NOT_WORSE = Gate(kind="not_worse_than_champion", metric="log_loss", value=0.01)
GOOD = {"roc_auc": 0.73, "average_precision": 0.55, "log_loss": 0.48}


def champion(**metrics: float) -> Opponent:
    return Opponent(version=3, metrics=metrics, challenger=GOOD, rows=1_000)


def test_a_challenger_that_meets_every_condition_passes_and_says_how():
    decision = decide([AT_LEAST, AT_MOST, NOT_WORSE], GOOD, champion(average_precision=0.5525))
    assert decision.passed
    assert decision.reasons == (
        "roc_auc 0.7300 is at least 0.68",
        "log_loss 0.4800 is at most 0.5",
        "average_precision 0.5500 is 0.0025 worse than champion version 3's 0.5525 on the same rows, "
        "within the 0.005 allowed",
    )


def test_one_failure_refuses_and_only_the_failures_are_the_reasons():
    decision = decide([AT_LEAST, NOT_WORSE], GOOD, champion(average_precision=0.58))
    assert not decision.passed
    assert decision.reasons == (
        "average_precision 0.5500 is 0.03 worse than champion version 3's 0.5800 on the same rows, "
        "more than the 0.005 allowed",
    )


@pytest.mark.parametrize(("held", "passed"), [(0.30, False), (0.475, True), (0.60, True)])
def test_of_a_loss_the_smaller_is_the_better(held: float, passed: bool):
    assert decide([LOSS_NOT_WORSE], GOOD, champion(log_loss=held)).passed is passed


@pytest.mark.parametrize("gate", [AT_LEAST, AT_MOST])
def test_a_bound_missed_is_said_in_words(gate: Gate):
    decision = decide([gate], {"roc_auc": 0.6, "log_loss": 0.7}, None)
    assert decision.reasons[0].split()[2:4] in (["is", "below"], ["is", "above"])


def test_the_first_model_has_no_champion_to_beat():
    decision = decide([NOT_WORSE], GOOD, None)
    assert decision.passed
    assert "no champion yet" in decision.reasons[0]


def test_a_champion_that_cannot_be_compared_is_not_replaced_by_itself():
    opponent = Opponent(version=3, metrics=None, why_not="its artifact is gone")
    decision = decide([NOT_WORSE], GOOD, opponent)
    assert not decision.passed
    assert "its artifact is gone" in decision.reasons[0]


def test_both_are_compared_on_the_rows_that_neither_was_fitted_on():
    opponent = Opponent(version=3, metrics={"average_precision": 0.4}, challenger={"average_precision": 0.3}, rows=10)
    assert not decide([NOT_WORSE], GOOD, opponent).passed


def test_a_metric_that_is_not_a_number_never_passes():
    assert not decide([AT_LEAST], {"roc_auc": float("nan")}, None).passed
    assert not decide([NOT_WORSE], GOOD, champion(average_precision=float("nan"))).passed


def test_without_a_gate_everything_passes():
    assert decide([], GOOD, None).reasons == ("no gate is declared",)


def test_gates_that_cannot_be_checked_are_found_before_training():
    assert gate_metrics([AT_LEAST, NOT_WORSE]) == ("roc_auc", "average_precision")
    with pytest.raises(NotDefinedError, match="Did you mean 'roc_auc'"):
        gate_metrics([Gate(kind="at_least", metric="roc_acu", value=1)])
    with pytest.raises(DefinitionError, match="sometimes"):
        gate_metrics([Gate(kind="sometimes", metric="roc_auc", value=1)])
