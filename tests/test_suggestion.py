from neo.suggestion import nearest, suggestion


def test_a_slip_is_met() -> None:
    assert suggestion("stepz", ["seed", "steps"]) == "; did you mean steps?"
    assert suggestion("Learning-Rat", ["learning_rate"]) == "; did you mean learning_rate?"
    assert suggestion("neo-2b-stf", ["NEO-2B-SFT", "neo-demo"]) == "; did you mean NEO-2B-SFT?"


def test_nonsense_is_answered_with_what_there_is_if_it_is_little() -> None:
    assert suggestion("zebra", ["rank", "alpha"]) == "; choose one of rank, alpha"
    assert suggestion("zebra", [f"name {number}" for number in range(30)]) == ""
    assert suggestion("zebra", []) == ""
    assert nearest("zebra", ["rank", "alpha"]) is None
