import argparse

import pytest

from utils.cli import float_in_range, int_in_range, int_or_auto, run_script
from utils.errors import UserError


@pytest.mark.parametrize("parse, text, message", (
    (int_in_range(1), "0", "'0' is not a whole number of 1 or more"),
    (int_in_range(1), "2.5", "'2.5' is not a whole number"),
    (int_in_range(2, 512), "600", "'600' is not a whole number from 2 to 512"),
    (int_or_auto(2), "1", "'1' is not a whole number of 2 or more"),
    (int_or_auto(2), "automatic", "'automatic' is not a whole number"),
    (float_in_range(0), "nan", "'nan' is not a number of 0 or more"),
    (float_in_range(0), "much", "'much' is not a number"),
))  # fmt: skip
def test_flags_refuse_values_out_of_range(parse, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        parse(text)


def test_values_in_range_are_taken():
    assert int_in_range(1)("7") == 7 and float_in_range(0)("1e-3") == 1e-3
    assert int_or_auto(2)("auto") == "auto" and int_or_auto(2)("2") == 2


def test_a_users_mistake_is_one_line_and_a_defect_keeps_its_traceback():
    def mistake(_):
        raise UserError("--lr 0 is too small")

    def defect(_):
        raise ValueError("a bug")

    with pytest.raises(SystemExit, match="^error: --lr 0 is too small$"):
        run_script(mistake, lambda: None)
    with pytest.raises(ValueError, match="a bug"):
        run_script(defect, lambda: None)
