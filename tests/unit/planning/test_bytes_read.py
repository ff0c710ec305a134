"""What a token of an answer reads: of an embedding a row, of experts those that are called."""

from studio.checkpoint.layers import Kind
from studio.planning.bytes_read import read_per_token
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from tests.unit.planning.test_hosts import UNTIED, layer


def test_a_token_reads_all_linear_weights_one_row_of_an_embedding_and_called_experts() -> None:
    plan = make_plan(UNTIED, Choice.of("int8_asym"))
    sizes = {a.layer.name: a.nbytes for a in plan.assignments}
    embedding, experts = sizes["model.embed_tokens.weight"], sizes["model.layers.0.mlp.experts.weight"]
    whole = sum(sizes.values()) - embedding + embedding // 1000
    assert read_per_token(plan) == whole
    assert read_per_token(plan, called_experts=2) == whole - experts + experts // 4
    tied = (layer("model.embed_tokens.weight", Kind.EMBEDDING, 1000, 64, tied=("lm_head.weight",)), *UNTIED[1:5])
    plan = make_plan(tied, Choice.of("int8_asym"))
    assert read_per_token(plan) == plan.compressed_bytes  # a head that is the embedding is read whole
