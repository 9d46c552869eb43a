"""Every method's declaration: keyword-only hyperparameters with ranges, and the facts that the loop and tables read."""

import inspect
from typing import Annotated, get_type_hints

import pytest
import torch
from torch import nn

from kdhelpers.methods import METHODS, Method
from kdhelpers.methods.parts.ranges import NonNegative, Range, Temperature, Weight
from kdhelpers.methods.parts.tensors import check_shapes


class Example(Method):
    title = "example"
    views = 2

    alpha: Weight = 1.0
    beta: Weight = 0.0
    temperature: Temperature = 4.0
    gamma: NonNegative = 0.0
    head: str = "linear"

    def build(self, context):
        self.head = nn.Linear(2, 3)


class Sharper(Example):
    temperature: Temperature = 2.0
    delta: Annotated[int, Range(1, 3)] = 1


def test_fields_become_keyword_only_parameters_and_a_subclass_keeps_their_order():
    parameters = inspect.signature(Sharper).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "alpha": 1.0, "beta": 0.0, "temperature": 2.0, "gamma": 0.0, "head": "linear", "delta": 1
    }  # fmt: skip
    assert list(parameters) == ["alpha", "beta", "temperature", "gamma", "head", "delta"]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    assert get_type_hints(Sharper.__init__)["temperature"] is float
    assert (Sharper().temperature, Example().temperature, Sharper(alpha=3).alpha) == (2.0, 4.0, 3)
    assert (Sharper.title, Sharper.views, Sharper.needs_teacher) == ("example", 2, True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, r"^temperature = -1: must lie in \[0.01, 1000\]$"),
        ({"alpha": float("nan")}, r"^alpha = nan: must lie in \[0, 1000000.0\]$"),
        ({"delta": 4}, r"^delta = 4: must lie in \[1, 3\]$"),
        ({"alpha": 0}, "^alpha, beta: all are 0, which trains nothing; raise one$"),
    ],
)
def test_a_value_out_of_its_range_and_weights_that_are_all_zero_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sharper(**wrong)


def test_unknown_and_positional_arguments_are_refused():
    for arguments, options in (((1.0,), {}), ((), {"theta": 1})):
        with pytest.raises(TypeError):
            Example(*arguments, **options)


def test_a_submodule_may_take_the_name_of_a_hyperparameter():
    example = Example()
    assert example.head == "linear"
    example.build(None)
    assert isinstance(example.head, nn.Linear)
    assert list(example.state_dict()) == ["head.weight", "head.bias"]


def test_methods_are_modules_of_their_own():
    one, other = Example(), Example()
    assert one != other
    assert len({one, other}) == 2
    assert one.train().training
    with pytest.raises(NotImplementedError, match="Example must return its loss terms"):
        one(None, None, None, 1)


def test_every_method_has_a_title_of_its_own():
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


def test_a_retired_option_is_not_accepted_any_more():
    retired = {name: method.retired for name, method in METHODS.items() if method.retired}
    assert retired == {
        "crd": {"positive": "exact", "normalizer": "frozen"},
        "conkd": {"match": "logits"},
        "lm_unlabelled": {"joint": True},
    }
    for name, options in retired.items():
        assert not set(options) & set(inspect.signature(METHODS[name]).parameters)


def test_shapes_are_checked_by_letter_number_and_length():
    layout = "a [B, 2, d], b [d], c [B]; stack them"
    check_shapes(layout, torch.zeros(3, 2, 4), torch.zeros(4), None)
    for a, b in (((3, 2, 4), (5,)), ((3, 1, 4), (4,)), ((3, 2), (4,)), ((3, 2, 4, 1), (4,))):
        with pytest.raises(ValueError) as caught:
            check_shapes(layout, torch.zeros(a), torch.zeros(b), torch.zeros(3))
        assert str(caught.value) == f"a {a}, b {b}, c (3,): must be {layout}"


def test_a_default_that_is_changed_without_annotation_is_refused():
    with pytest.raises(TypeError, match="Mine.temperature: is a hyperparameter; annotate the new default"):

        class Mine(METHODS["lm"]):
            temperature = 2.0


def test_an_attribute_of_every_method_that_is_annotated_is_refused():
    with pytest.raises(TypeError, match="Mine.views: is not a hyperparameter; leave its annotation out"):

        class Mine(METHODS["lm"]):
            views: int = 2


def test_an_attribute_that_is_neither_a_field_nor_of_every_method_is_refused():
    with pytest.raises(TypeError, match="Mine.weight: has no annotation; write `weight: float = 0.3`"):

        class Mine(Method):
            weight = 0.3


@pytest.mark.parametrize("wrong", ["final_map", ("final_maps",)])
def test_reads_that_name_no_part_of_the_outputs_are_refused(wrong):
    with pytest.raises(TypeError, match=r"Mine.reads = .*: must be a tuple of some of logits, .*, final_map, pre_"):
        type("Mine", (Method,), {"reads": wrong})


def test_a_constructor_is_refused():
    with pytest.raises(TypeError, match="Mine.__init__: annotate hyperparameters instead, and make modules in build"):

        class Mine(Method):
            def __init__(self, weight=1.0):
                super().__init__()


def test_an_annotation_other_than_a_range_is_refused():
    class Mine(Method):
        weight: Annotated[float, "large"] = 1.0

    with pytest.raises(TypeError, match=r"Mine.weight: 'large' is not a Range; write Range\(low, high\)"):
        Mine()
