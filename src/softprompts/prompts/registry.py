"""The parts of a prompt that a recipe may name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from softprompts.registry import Option, Registry

if TYPE_CHECKING:
    from softprompts.prompts.active_lengths.base import ActiveLength
    from softprompts.prompts.depths.base import Depth
    from softprompts.prompts.initializers.base import Initializer
    from softprompts.prompts.pools.base import Pool
    from softprompts.prompts.positions.base import Position
    from softprompts.prompts.rows.base import Rows

_LESTER = "Lester et al. 2021, arXiv 2104.08691"
_P_TUNING = "Liu et al. 2021, arXiv 2103.10385"
_DYNAMIC = "Yang et al. 2023, arXiv 2303.02909"

_NETWORK, _BRANCH = {"network_rate_multiplier": 0.01}, {"network_rate_multiplier": 0.03}
"""Adam moves each weight by its rate, and a row by all that feed it, if no norm is behind."""

_SELECTOR = {"selector_rate_multiplier": 0.1}

_RELU = {"has_relu": Option(bool, False, "pass the logits through a ReLU, as the code does")}

_WIDTH, _LAYERS = {"ge": 1, "le": 65536}, {"ge": 1, "le": 64}
"""Generous bounds: a slip beyond them would take all memory before it is found."""

ROWS: Registry[type[Rows]] = Registry("rows", "softprompts.prompts.rows.base:Rows")
ROWS.register(
    "plain",
    "softprompts.prompts.rows.plain:PlainRows",
    summary="free rows of embeddings",
    reference=_LESTER,
)
ROWS.register(
    "p-tuning",
    "softprompts.prompts.rows.p_tuning:PTuningRows",
    summary="an embedding read through a small encoder, dropped after training",
    reference=_P_TUNING,
    options={
        "encoder": Option(
            str, "mlp", "mlp, or lstm, where each row sees all", {"pattern": "^(mlp|lstm)$"}
        ),
        "hidden_size": Option(
            int | None, None, "width of the encoder inside; null takes that of a row", _WIDTH
        ),
        "num_layers": Option(int, 2, "hidden layers of the MLP, or layers of the LSTM", _LAYERS),
    },
    defaults=_NETWORK,
)
ROWS.register(
    "residual",
    "softprompts.prompts.rows.residual:ResidualRows",
    summary="rows plus a shallow network with a skip, dropped after training",
    reference="Razdaibiedina et al. 2023, arXiv 2305.03937",
    options={
        "bottleneck": Option(int, 400, "width of the network's hidden layer", _WIDTH),
        "depth": Option(int, 1, "number of networks in a chain inside the branch", _LAYERS),
        "activation": Option(str, "relu", "relu or tanh", {"pattern": "^(relu|tanh)$"}),
        "is_shared": Option(bool, True, "one network for all rows, or one per row"),
        "has_skip": Option(bool, True, "add the row itself to the network's output"),
        "has_layer_norm": Option(bool, True, "end the branch with a LayerNorm"),
        "dropout": Option(float, 0.0, "dropout before the LayerNorm", {"ge": 0.0, "lt": 1.0}),
        "gain": Option(
            float | None,
            None,
            "first gain of the last LayerNorm; null is 0 in a unit with a skip, else 1",
            {"ge": 0.0, "le": 1e6},
            is_late=True,
        ),
    },
    defaults=_BRANCH,
)
ROWS.register(
    "prefix-mlp",
    "softprompts.prompts.rows.prefix_mlp:PrefixMlpRows",
    summary="an embedding widened to all layers by a small network, dropped after training",
    reference="Li and Liang 2021, arXiv 2101.00190",
    options={
        "bottleneck": Option(
            int | None,
            None,
            "width of the network's hidden layer; null takes that of the embedding",
            _WIDTH,
        ),
    },
    defaults={"network_rate_multiplier": 0.1},
)

ROWS.register(
    "low-rank",
    "softprompts.prompts.rows.low_rank:LowRankRows",
    summary="rows as a product of two thin matrices",
    reference="Guo et al. 2024, arXiv 2406.19486",
    options={
        "rank": Option(
            int | None, None, "the rank, at most the length; null is 4, or the length", _WIDTH
        )
    },
    is_method=True,
)

ROWS.register(
    "superposition",
    "softprompts.prompts.rows.superposition:SuperpositionRows",
    summary="rows as weighted sums of the vocabulary's embeddings",
    version=2,
    reference="Ali Sadraei Javaheri et al. 2024, arXiv 2406.05279",
    options={"num_words": Option(int, 128, "words that rows are sums of", _WIDTH)},
    is_method=True,
)

ROWS.register(
    "dept",
    "softprompts.prompts.rows.dept:DecomposedRows",
    summary="free rows, and a low-rank change of how tokens are embedded",
    version=2,
    reference="Shi and Lipani 2023, arXiv 2309.05173",
    options={
        "rank": Option(int, 8, "rank of the change", _WIDTH),
        "num_places": Option(int, 256, "places of the input that are changed", _WIDTH),
    },
    defaults={"tokens_rate_multiplier": 0.01},
    is_method=True,
)

POSITIONS: Registry[type[Position]] = Registry(
    "position", "softprompts.prompts.positions.base:Position"
)
POSITIONS.register(
    "fixed",
    "softprompts.prompts.prompt:FixedPosition",
    summary="a fixed number of rows before the input, the others after it",
    reference=_LESTER,
    options={
        "split": Option(int | None, None, "rows before the input; null puts all there", {"ge": 0}),
        "after_bos": Option(
            bool, False, "rows before a decoder's input stand after its first token", is_late=True
        ),
    },
)

POSITIONS.register(
    "marked",
    "softprompts.prompts.positions.marked:MarkedPosition",
    summary="rows stand where the template has `{prompt}`",
    reference=_P_TUNING,
    options={
        "counts": Option(
            list[Annotated[int, Field(ge=0)]] | None,
            None,
            "rows at each `{prompt}`, in order; null shares them out evenly",
        ),
    },
)
POSITIONS.register(
    "task",
    "softprompts.prompts.positions.task:TaskPosition",
    summary="the split is learned once for the task",
    reference=_DYNAMIC,
    defaults=_SELECTOR,
)
POSITIONS.register(
    "instance",
    "softprompts.prompts.positions.instance:InstancePosition",
    summary="the split is learned as a function of each input",
    reference=_DYNAMIC,
    options=_RELU,
    defaults=_SELECTOR,
)

POOLS: Registry[type[Pool]] = Registry("pool", "softprompts.prompts.pools.base:Pool")
POOLS.register(
    "single",
    "softprompts.prompts.prompt:SinglePool",
    summary="one set of rows for every input",
)
_SIZE = {"size": Option(int, 4, "number of sets", {"ge": 1, "le": 4096})}
POOLS.register(
    "attention",
    "softprompts.prompts.pools.attention:AttentionPool",
    summary="a mixture of several sets of rows, weighted per input",
    reference=_DYNAMIC,
    options={
        **_SIZE,
        "has_tanh": Option(
            bool, False, "pass the logits through a tanh, as the code does", is_late=True
        ),
    },
    defaults=_SELECTOR,
)
POOLS.register(
    "task",
    "softprompts.prompts.pools.task:TaskPool",
    summary="a mixture of several sets of rows, weighted once for the task",
    reference=_DYNAMIC,
    options=_SIZE,
    defaults=_SELECTOR,
)

POOLS.register(
    "smop",
    "softprompts.prompts.pools.smop:SmopPool",
    summary="one of several sets of rows for each input, chosen by a gate",
    reference="Choi et al. 2023, EMNLP 2023",
    options={
        **_SIZE,
        "noise": Option(float, 1.0, "noise of the gate in training, relative", {"ge": 0.0}),
        "is_scaled": Option(bool, False, "multiply rows by the gate's share, as the paper does"),
    },
    defaults=_SELECTOR,
    is_method=True,
)

POOLS.register(
    "mpt",
    "softprompts.prompts.pools.mpt:MptPool",
    summary="rows that tasks share, times a low-rank factor of each task's own",
    reference="Wang et al. 2023, arXiv 2303.02861",
    options={
        "size": Option(int, 1, "number of sets: 1", {"ge": 1, "le": 1}),
        "rank": Option(int, 1, "rank of a task's factor", _WIDTH),
    },
    defaults=_SELECTOR,
    is_method=True,
)

ACTIVE_LENGTHS: Registry[type[ActiveLength]] = Registry(
    "active length", "softprompts.prompts.active_lengths.base:ActiveLength"
)
_START = {
    "start": Option(int | None, None, "rows that lead at the start; null is all", {"ge": 0}),
    "lead": Option(float, 1.0, "first logit of that length, where the others have 0"),
}
ACTIVE_LENGTHS.register(
    "fixed",
    "softprompts.prompts.prompt:FixedActiveLength",
    summary="the same number of active rows for every input",
    options={"count": Option(int | None, None, "active rows; null is all", {"ge": 0})},
)
ACTIVE_LENGTHS.register(
    "task",
    "softprompts.prompts.active_lengths.task:TaskActiveLength",
    summary="the number of active rows is learned once for the task",
    reference=_DYNAMIC,
    options=_START,
    defaults=_SELECTOR,
)
ACTIVE_LENGTHS.register(
    "instance",
    "softprompts.prompts.active_lengths.instance:InstanceActiveLength",
    summary="the number of active rows is learned as a function of each input",
    reference=_DYNAMIC,
    options={
        **_START,
        **_RELU,
    },
    defaults=_SELECTOR,
)

DEPTHS: Registry[type[Depth]] = Registry("depth", "softprompts.prompts.depths.base:Depth")
DEPTHS.register(
    "input",
    "softprompts.prompts.depths.input:InputDepth",
    summary="rows are embeddings among those of the input",
    reference=_LESTER,
)
DEPTHS.register(
    "every-layer",
    "softprompts.prompts.depths.every_layer:EveryLayerDepth",
    summary="rows are keys and values in every layer",
    reference="Liu et al. 2021, arXiv 2110.07602",
    options={"from_layer": Option(int, 0, "first layer that gets rows, from 0", {"ge": 0})},
    defaults={"learning_rate": 0.02},
)

INITIALIZERS: Registry[type[Initializer]] = Registry(
    "initializer", "softprompts.prompts.initializers.base:Initializer"
)
INITIALIZERS.register(
    "vocabulary",
    "softprompts.prompts.initializers.vocabulary:VocabularyInitializer",
    summary="embeddings of tokens drawn at random from the vocabulary",
    reference=_LESTER,
)
INITIALIZERS.register(
    "text",
    "softprompts.prompts.initializers.text:TextInitializer",
    summary="embeddings of a text's tokens, with random vocabulary rows before them if need be",
    options={
        "text": Option(
            str | None,
            None,
            "the text; null: the task's instruction, or its label words",
            {"min_length": 1},
        ),
    },
    facts={"has_text": True},
)
INITIALIZERS.register(
    "labels",
    "softprompts.prompts.initializers.labels:LabelsInitializer",
    summary="mean embeddings of the class-label words, then random vocabulary rows",
    reference=_LESTER,
)
INITIALIZERS.register(
    "uniform",
    "softprompts.prompts.initializers.uniform:UniformInitializer",
    summary="uniform numbers in [-range, range]",
    options={"range": Option(float, 0.5, "half width of the interval", {"gt": 0.0})},
)
INITIALIZERS.register(
    "normal",
    "softprompts.prompts.initializers.normal:NormalInitializer",
    summary="normal numbers with the embedding table's mean and deviation, per dimension",
)
INITIALIZERS.register(
    "file",
    "softprompts.prompts.initializers.file:FileInitializer",
    summary="rows of a prompt.safetensors file or run folder",
    options={
        "path": Option(str, ..., "the file or run folder", {"min_length": 1}),
        "digest": Option(
            str | None,
            None,
            "digest of that file, filled in when the run begins",
            {"pattern": "^[0-9a-f]{16}$"},
        ),
        "is_snapped": Option(bool, False, "take the token nearest to each row", is_late=True),
    },
)
