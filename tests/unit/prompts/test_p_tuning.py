"""P-tuning rows: formulas, counts, draws and gradients."""

import math

import pytest
import torch
from torch import nn

import softprompts as sp
from softprompts.errors import PromptError, RecipeError
from softprompts.prompts.prompt import FixedPosition, Prompt
from softprompts.prompts.registry import ROWS
from softprompts.prompts.rows.p_tuning import PTuningRows
from softprompts.recipes.resolving import resolve_prompt

LENGTH, HIDDEN, INNER = 5, 8, 3
ENCODERS = ("mlp", "lstm")


def initial():
    return torch.randn(LENGTH, HIDDEN, generator=torch.Generator().manual_seed(3))


def p_tuning(seed=4, **options):
    draws = torch.Generator().manual_seed(seed)
    return PTuningRows(initial(), draws, **{"hidden_size": INNER, **options})


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def one_direction(lstm, layer, inputs, suffix):
    """Return an LSTM layer's states, one row at a time, by the textbook's gates."""
    weights = [
        getattr(lstm, f"{name}_l{layer}{suffix}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    state = cell = torch.zeros(INNER)
    order = range(LENGTH - 1, -1, -1) if suffix else range(LENGTH)
    states = [state] * LENGTH
    for row in order:
        gates = weights[0] @ inputs[row] + weights[1] @ state + weights[2] + weights[3]
        entry, forget, candidate, exit = gates.chunk(4)
        cell = forget.sigmoid() * cell + entry.sigmoid() * candidate.tanh()
        state = exit.sigmoid() * cell.tanh()
        states[row] = state
    return torch.stack(states)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_mlp_rows_follow_the_formula(num_layers):
    rows = p_tuning(num_layers=num_layers)
    layers = [layer for layer in rows.encoder.head if isinstance(layer, nn.Linear)]
    assert len(layers) == num_layers + 1
    for i in range(LENGTH):
        x = rows.weight[i]
        for layer in layers[:-1]:
            x = (layer.weight @ x + layer.bias).clamp(min=0)
        torch.testing.assert_close(rows()[i], layers[-1].weight @ x + layers[-1].bias)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_lstm_rows_follow_the_formula(num_layers):
    rows = p_tuning(encoder="lstm", num_layers=num_layers)
    x = rows.weight
    for layer in range(num_layers):
        lstm = rows.encoder.lstm
        x = torch.cat([one_direction(lstm, layer, x, s) for s in ("", "_reverse")], dim=1)
    first, _, last = rows.encoder.head
    expected = (x @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(rows(), expected)


@pytest.mark.parametrize(("encoder", "others"), [("mlp", 0), ("lstm", LENGTH - 1)])
def test_only_the_lstm_lets_rows_see_each_other(encoder, others):
    rows = p_tuning(encoder=encoder)
    (rows()[2] * torch.arange(HIDDEN)).sum().backward()
    seen = rows.weight.grad.abs().sum(dim=1) > 0
    assert seen[2]
    assert seen.sum() == 1 + others


@pytest.mark.parametrize("inner", [None, INNER])
def test_counts_are_those_of_the_docstring(inner):
    d, n = HIDDEN, LENGTH
    h = d if inner is None else inner
    embedding = d * n
    assert count(p_tuning(hidden_size=inner)) == embedding + 2 * d * h + h * h + 2 * h + d
    assert (
        count(p_tuning(encoder="lstm", hidden_size=inner))
        == embedding + 10 * d * h + 36 * h * h + 34 * h + d
    )


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_embedding_starts_from_the_given_rows_in_float32(encoder, dtype):
    given = initial().to(dtype)
    rows = PTuningRows(given, torch.Generator(), encoder=encoder)
    assert {p.dtype for p in rows.parameters()} == {torch.float32}
    assert torch.equal(rows.weight, given.float())
    with torch.no_grad():
        rows.weight.zero_()
    assert torch.equal(given, initial().to(dtype))  # a copy is trained


@pytest.mark.parametrize("encoder", ENCODERS)
def test_weights_are_drawn_in_torchs_ranges(encoder):
    rows = PTuningRows(
        torch.zeros(1, 60), torch.Generator().manual_seed(0), encoder=encoder, hidden_size=40
    )
    layers = [m for m in rows.encoder.modules() if isinstance(m, nn.Linear | nn.LSTM)]
    assert len(layers) == 3
    for layer in layers:
        is_lstm = isinstance(layer, nn.LSTM)
        bound = 1 / math.sqrt(layer.hidden_size if is_lstm else layer.in_features)
        for weight in layer.parameters():
            assert weight.abs().max() <= bound
            assert weight.abs().max() > 0.8 * bound
            assert weight.unique().numel() > 0.9 * weight.numel()
            assert abs(weight.mean()) < 0.5 * bound


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_named_generator_draws_everything(encoder):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        rows = p_tuning(encoder=encoder)
        assert torch.equal(before, torch.random.get_rng_state())
        states.append(rows.state_dict())
    other = p_tuning(seed=5, encoder=encoder).state_dict()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
        assert torch.equal(value, other[name]) == (name == "weight")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_reading_the_rows_draws_nothing(encoder):
    rows = p_tuning(encoder=encoder)
    draws = torch.Generator().manual_seed(1)
    before, everywhere = draws.get_state(), torch.random.get_rng_state()
    assert torch.equal(rows(draws), rows(None))
    assert torch.equal(before, draws.get_state())
    assert torch.equal(everywhere, torch.random.get_rng_state())


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_is_trained(encoder, num_layers):
    rows = p_tuning(encoder=encoder, num_layers=num_layers, hidden_size=None)
    (rows() * torch.linspace(-1, 1, HIDDEN)).sum().backward()
    for name, parameter in rows.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_baked_rows_are_the_live_ones(encoder):
    rows = p_tuning(encoder=encoder)
    baked = Prompt(rows, FixedPosition(LENGTH)).bake()
    assert baked.shape == (LENGTH, HIDDEN)
    assert not baked.requires_grad
    assert not torch.equal(baked, rows.weight)
    assert torch.equal(baked, rows())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_state_carries_the_rows_to_another_start(encoder):
    rows, other = p_tuning(encoder=encoder), p_tuning(seed=9, encoder=encoder)
    assert not torch.equal(rows(), other())
    other.load_state_dict(rows.state_dict())
    assert torch.equal(rows(), other())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_p_tuning_rows_need_a_row(encoder):
    with pytest.raises(PromptError, match="at least 1 for p-tuning rows, but is 0"):
        PTuningRows(torch.zeros(0, HIDDEN), torch.Generator(), encoder=encoder)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(PromptError, match=r"`prompt\.rows\.encoder` must be mlp or lstm, .*'gru'"):
        p_tuning(encoder="gru")


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("encoder", "gru", "`rows.encoder` must be one of mlp, lstm, but is 'gru'"),
        ("hidden_size", 0, "`rows.hidden_size` must be at least 1, but is 0"),
        ("num_layers", 0, "`rows.num_layers` must be at least 1, but is 0"),
        ("dropout", 0.1, "`rows.dropout` is an unknown key; .* encoder, hidden_size, num_layers"),
    ],
)
def test_a_recipe_with_a_wrong_option_is_refused(option, value, text):
    with pytest.raises(RecipeError, match=text):
        sp.PromptConfig(method="p-tuning", rows={"kind": "p-tuning", option: value})


def test_the_method_is_ten_rows_through_an_mlp():
    assert ROWS.load("p-tuning") is PTuningRows
    prompt = resolve_prompt(sp.PromptConfig(method="p-tuning"))
    assert prompt.length == 10
    assert prompt.initializer.kind == "vocabulary"
    assert prompt.rows.model_dump() == {
        "kind": "p-tuning",
        "encoder": "mlp",
        "hidden_size": None,
        "num_layers": 2,
    }
