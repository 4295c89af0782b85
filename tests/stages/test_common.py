"""The settings that every stage shares."""

import pytest

from hardtack.errors import InputError
from hardtack.stages import Common


def test_a_precision_that_does_not_exist_is_refused_before_a_folder_is_made():
    with pytest.raises(InputError, match=r"precision 'fp16' is not allowed .*; allowed: fp32, bf16"):
        Common(precision="fp16")
