from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError, nearest


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


def test_nearest_names_the_close_one_and_lists_all_in_order():
    assert nearest("magnitud", ["random", "magnitude"]) == (
        "; did you mean 'magnitude'? allowed: magnitude, random"
    )


def test_nearest_makes_no_guess_when_nothing_is_near():
    assert nearest("xyz", ("random", "magnitude")) == "; allowed: magnitude, random"


@given(st.text(max_size=20), st.lists(st.text("abcdef_", min_size=1, max_size=9), min_size=1, unique=True))
def test_nearest_is_one_line_that_lists_every_name(name, allowed):
    tail = nearest(name, allowed)
    assert "\n" not in tail
    assert tail.split("allowed: ")[-1] == ", ".join(sorted(allowed))
