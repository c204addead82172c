"""Answers that are found once for all who want them."""

import threading

import pytest

from nemo_airflow.plugin.api.shared_answers import SharedAnswers


def test_an_answer_is_found_once_for_all_who_ask_meanwhile_and_kept_as_long_as_it_says():
    kept = SharedAnswers(8, lambda found: found["seconds"])
    gate, asked = threading.Event(), []

    def find(seconds):
        asked.append(seconds)
        assert gate.wait(300)
        return {"seconds": seconds}

    answers = []
    threads = [threading.Thread(target=lambda: answers.append(kept.get("a", lambda: find(60.0)))) for _ in range(5)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(300)
    assert answers == [{"seconds": 60.0}] * 5
    assert kept.get("a", lambda: find(1.0)) == {"seconds": 60.0}
    assert kept.get("b", lambda: find(-1.0)) == {"seconds": -1.0}
    assert kept.get("b", lambda: find(2.0)) == {"seconds": 2.0}
    kept.forget()
    assert kept.get("a", lambda: find(3.0)) == {"seconds": 3.0}
    assert asked == [60.0, -1.0, 2.0, 3.0]


def test_an_error_reaches_all_who_wait_and_is_not_kept():
    kept = SharedAnswers(8, lambda found: 60.0)
    gate, errors = threading.Event(), []

    def fail():
        assert gate.wait(300)
        raise OSError("away")

    def ask():
        try:
            kept.get("a", fail)
        except OSError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(300)
    assert errors == ["away"] * 3
    assert kept.get("a", lambda: "here") == "here"


@pytest.mark.parametrize("at_most", [1, 3])
def test_the_oldest_answers_go_first(at_most):
    kept = SharedAnswers(at_most, lambda found: 60.0)
    found = []
    for key in [*range(4), *reversed(range(4))]:
        kept.get(key, lambda key=key: found.append(key))
    assert found == [*range(4), *reversed(range(4 - at_most))]
