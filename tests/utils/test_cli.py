import argparse

import pytest

from utils.cli import real, run_script, whole, whole_or_auto
from utils.errors import UserError


@pytest.mark.parametrize("parse, text, message", (
    (whole(1), "0", "'0' is not a whole number of 1 or more"),
    (whole(1), "2.5", "'2.5' is not a whole number"),
    (whole(2, 512), "600", "'600' is not a whole number from 2 to 512"),
    (whole_or_auto(2), "1", "'1' is not a whole number of 2 or more"),
    (whole_or_auto(2), "automatic", "'automatic' is not a whole number"),
    (real(0), "nan", "'nan' is not a number of 0 or more"),
    (real(0), "much", "'much' is not a number"),
))  # fmt: skip
def test_flags_refuse_values_out_of_range(parse, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        parse(text)


def test_values_in_range_are_taken():
    assert whole(1)("7") == 7 and real(0)("1e-3") == 1e-3
    assert whole_or_auto(2)("auto") == "auto" and whole_or_auto(2)("2") == 2


def test_a_users_mistake_is_one_line_and_a_defect_keeps_its_traceback():
    def mistake(_):
        raise UserError("--lr 0 is too small")

    def defect(_):
        raise ValueError("a bug")

    with pytest.raises(SystemExit, match="^error: --lr 0 is too small$"):
        run_script(mistake, lambda: None)
    with pytest.raises(ValueError, match="a bug"):
        run_script(defect, lambda: None)
