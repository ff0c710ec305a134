"""Tests lie as the modules do: ``studio/ROOM/NAME.py`` has ``tests/unit/ROOM/test_NAME.py``, or a reason not to.

A module of imports and constants alone needs none. Two lists name the others that have none: those without a decision
of their own, each with the reason, and those that are tested through what they are for, each with the place.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STUDIO, UNIT = ROOT / "studio", ROOT / "tests" / "unit"

WITHOUT_LOGIC = {
    "base/settings": "reads the variables once",
    "__main__": "calls the terminal",
    "chat/answers": "a dataclass, two of whose properties only pick a field",
    "cli/commands": "gathers the commands, and sets up a process",
    "runtime/decoder/interface": "the abstract decoder",
    "runtime/kernels/product": "the abstract product",
    "session/model_jobs": "two calls passed on",
    "session/visitor": "a dataclass",
    "ui/chat_panel": "builds components",
    "ui/decision_panel": "builds components",
    "ui/runs_panel": "builds components",
    "ui/take_panel": "builds components",
    "ui/scripts": "what the browser runs",
    "ui/drift_panel": "builds components",
    "ui/page": "builds components",
    "ui/panels": "builds components",
    "ui/text_picker": "builds components",
}

ELSEWHERE = {
    "__init__": "integration/test_library.py",
    "base/assets": "integration/test_installed.py",
    "base/workers/child": "unit/base/workers/test_workers.py",
    "base/workers/serving": "unit/base/workers",
    "base/workers/zygote": "unit/base/workers/test_forking.py",
    "calibration/dataset": "integration/test_dataset.py",
    "chat/columns": "unit/chat/test_model_pool.py",
    "chat/detokenize": "unit/checkpoint/tokenizer",
    "chat/worker_model": "integration/test_isolation.py",
    "checkpoint/config": "unit/checkpoint/test_architecture.py",
    "checkpoint/gguf/tensors": "unit/checkpoint/gguf/test_convert.py",
    "checkpoint/hub_blobs": "integration/hub",
    "checkpoint/hub_client": "integration/hub",
    "checkpoint/open_model": "integration/pipeline/test_damaged_sources.py",
    "checkpoint/packed/awq": "unit/checkpoint/packed/test_formats.py",
    "checkpoint/packed/gptq": "unit/checkpoint/packed/test_formats.py",
    "checkpoint/packed/packing": "unit/checkpoint/packed/test_formats.py",
    "checkpoint/packed/words": "unit/checkpoint/packed/test_formats.py",
    "checkpoint/recipe": "integration/pipeline/test_tampered_folders.py",
    "checkpoint/recipe_fields": "integration/recipe/test_apply.py",
    "planning/recipe_plan": "integration/recipe/test_apply.py",
    "session/rebuild": "integration/recipe/test_apply.py",
    "session/opened_recipe": "integration/recipe/test_apply.py",
    "cli/apply": "integration/recipe/test_apply.py",
    "base/torch_threads": "integration/recipe/test_apply.py",
    "export/model_folder": "unit/export/mlx/test_target.py",
    "ui/login": "integration/page/test_push.py",
    "ui/push_handlers": "integration/page/test_push.py",
    "export/read_back": "unit/export/test_verify_folder.py",
    "export/push": "integration/hub/test_push.py",
    "export/push_files": "integration/hub/test_push.py",
    "session/pushing": "integration/hub/test_push.py",
    "session/holding": "unit/export/test_holding.py",
    "cli/push": "integration/hub/test_push.py",
    "cli/targets": "unit/export/test_holding.py",
    "export/bundle": "integration/gguf/test_bundle.py",
    "export/checking": "integration/gguf/test_bundle.py",
    "export/stored_rows": "integration/gguf/test_bundle.py",
    "export/programs": "integration/gguf/test_bundle.py",
    "export/card_words": "property/test_card_words.py",
    "checkpoint/tensor_names": "integration/families",
    "checkpoint/tokenizer/files": "unit/checkpoint/tokenizer",
    "checkpoint/tokenizer/process": "unit/checkpoint/tokenizer",
    "cli/chat": "integration/cli/test_chat.py",
    "cli/evaluate": "integration/cli/test_texts.py",
    "cli/inspect": "integration/cli/test_inspect.py",
    "cli/inspect_report": "integration/cli/test_inspect.py",
    "cli/opened": "integration/cli/test_choices.py",
    "cli/plans": "integration/cli/test_choices.py",
    "cli/report": "integration/cli/test_estimate.py",
    "cli/serve": "integration/cli/test_process.py",
    "cli/terminal": "integration/cli/test_surroundings.py",
    "compression/block_tuning": "unit/quantization/rounding/test_sign_round.py",
    "evaluation/drift": "unit/evaluation/test_evaluate.py",
    "evaluation/questions": "unit/evaluation/test_evaluate.py",
    "export/gguf/becoming": "integration/gguf/test_refused.py",
    "export/gguf/same": "unit/cli/test_verify.py",
    "export/gguf/families": "integration/gguf/test_export.py",
    "export/gguf/file": "integration/gguf/test_refused.py",
    "export/gguf/target": "integration/gguf/test_export.py",
    "export/gguf/tensors": "integration/gguf/test_export.py",
    "export/gguf/types": "integration/gguf/test_export.py",
    "export/gguf/verify": "engines/test_verify.py",
    "export/onnx/graph": "engines/test_onnx.py",
    "export/onnx/nodes": "engines/test_onnx.py",
    "export/onnx/weights": "engines/test_onnx.py",
    "export/openvino/graph": "engines/test_openvino.py",
    "export/openvino/library": "unit/export/openvino/test_target.py",
    "export/compressed_model": "unit/export/test_targets.py",
    "export/studio_folder": "integration/test_export_refused.py",
    "export/target": "unit/export/test_targets.py",
    "planning/layer_figure": "unit/planning/test_figures.py",
    "planning/layer_losses": "unit/planning/test_output_error.py",
    "quantization/ggml/formats": "unit/quantization/ggml/test_fit.py",
    "quantization/ggml/k_quants": "unit/quantization/ggml/test_blocks.py",
    "quantization/ggml/simple": "unit/quantization/ggml/test_blocks.py",
    "planning/planned_bits": "unit/planning/test_figures.py",
    "planning/survey_file": "unit/planning/test_survey.py",
    "planning/weight_error": "unit/planning/test_figures.py",
    "quantization/formats": "unit/quantization/test_mode.py",
    "quantization/native/__init__": "unit/quantization/test_quantize.py",
    "quantization/native/triton_survey": "unit/quantization/native/test_cuda_survey.py",
    "quantization/rounding/gptq": "unit/quantization/rounding/test_methods.py",
    "quantization/rounding/hqq": "unit/quantization/rounding/test_methods.py",
    "quantization/rounding/integer": "unit/quantization/rounding/test_nearest.py",
    "quantization/rounding/least_squares": "unit/quantization/rounding/test_methods.py",
    "quantization/rounding/quantized_weight": "unit/quantization/rounding/test_rounding.py",
    "runtime/decoder/carried_state": "families/test_readings.py",
    "runtime/decoder/cpu": "integration/test_decoder.py",
    "runtime/decoder/cuda_prompt": "unit/runtime/decoder/test_cuda.py",
    "runtime/decoder/cuda_step": "unit/runtime/decoder/test_cuda.py",
    "runtime/decoder/families": "families/test_compiled_families.py",
    "runtime/decoder/lengths": "families/test_readings.py",
    "runtime/decoder/llama_like": "integration/test_decoder.py",
    "runtime/decoder/open_decoder": "integration/test_decoder.py",
    "runtime/decoder/prefix_cache": "unit/chat/test_conversation.py",
    "runtime/decoder/shape": "unit/base/test_pointers.py",
    "runtime/decoder/transformers_decoder": "families/test_readings.py",
    "runtime/kernels/choice": "unit/runtime/kernels/test_kernels.py",
    "runtime/kernels/compiled": "unit/runtime/native/test_products.py",
    "runtime/kernels/int4": "unit/runtime/kernels/test_kernels.py",
    "runtime/kernels/int8": "unit/runtime/kernels/test_kernels.py",
    "runtime/kernels/layers": "unit/runtime/kernels/test_kernels.py",
    "runtime/kernels/tiled": "unit/runtime/kernels/test_kernels.py",
    "runtime/model": "integration/pipeline/test_architectures.py",
    "runtime/native/tiles": "unit/runtime/native/test_products.py",
    "session/decision": "integration/page/test_decision.py",
    "session/making": "integration/page/test_decision.py",
    "session/samples": "integration/page/test_decision.py",
    "ui/address": "integration/page/test_decision.py",
    "ui/browser_memory": "integration/page/test_decision.py",
    "ui/decision_handlers": "integration/page/test_decision.py",
    "ui/decision_updates": "integration/page/test_decision.py",
    "ui/front_chart": "integration/page/test_decision.py",
    "ui/hosts": "integration/page/test_decision.py",
    "ui/make_progress": "integration/page/test_decision.py",
    "ui/preset_choices": "integration/page/test_decision.py",
    "ui/runs_table": "integration/page/test_decision.py",
    "ui/sample_answers": "integration/page/test_decision.py",
    "ui/take": "integration/page/test_decision.py",
    "session/api": "integration/test_library.py",
    "session/chat_model": "integration/test_library.py",
    "session/compressed_folder": "unit/session/test_whole_jobs.py",
    "session/compared": "integration/cli/test_inspect.py",
    "cli/front": "integration/cli/test_front.py",
    "session/referee": "integration/cli/test_front.py",
    "ui/chat_handlers": "integration/page",
    "ui/controls": "integration/page/test_controls.py",
    "ui/drift_handlers": "integration/page",
    "ui/handlers": "integration/page",
    "ui/map_text": "unit/ui/test_present.py",
    "ui/plan_panel": "integration/page/test_controls.py",
    "ui/roofline": "unit/chat/test_roofline.py",
    "ui/updates": "integration/page/test_texts.py",
}


def modules() -> list[str]:
    return sorted(str(file.relative_to(STUDIO).with_suffix("")) for file in STUDIO.rglob("*.py"))


def body(module: str) -> list[ast.stmt]:
    return ast.parse((STUDIO / f"{module}.py").read_text()).body


def is_plain(module: str) -> bool:
    """Return whether a module is nothing but words, imports and constants."""
    return all(
        isinstance(each, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign) for each in body(module)
    )


def candidates(module: str) -> list[Path]:
    """Return where a module's own tests may lie; a package's beside it too."""
    place = UNIT / module
    if place.name == "__init__":
        package = place.parent
        return [package.with_name(f"test_{package.name}.py"), package / f"test_{package.name}.py"]
    return [place.with_name(f"test_{place.name}.py")]


def has_tests(module: str) -> bool:
    return any(file.is_file() for file in candidates(module))


def test_every_module_with_logic_has_tests_of_its_own() -> None:
    lacking = [module for module in modules() if not has_tests(module) and not is_plain(module)]
    assert [module for module in lacking if module not in WITHOUT_LOGIC | ELSEWHERE] == []


def test_the_lists_name_what_is_there_and_has_none() -> None:
    listed = WITHOUT_LOGIC | ELSEWHERE
    assert listed.keys() - set(modules()) == set()
    assert [module for module in listed if has_tests(module)] == []


def test_what_is_tested_elsewhere_is_tested_there() -> None:
    assert [module for module, place in ELSEWHERE.items() if not holds_tests(ROOT / "tests" / place)] == []


def holds_tests(place: Path) -> bool:
    """Return whether a file has tests, or one of those in a folder."""
    files = [place] if place.suffix else sorted(place.rglob("test_*.py"))
    return any("\ndef test_" in file.read_text() or "\nclass Test" in file.read_text() for file in files)
