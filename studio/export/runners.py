"""The programs that people run models with: which target each loads, and what to type there. A new one is a line here.

Its words stand in the catalogues under ``program.<name>``. A target that no program here loads is offered under its own
name. Knows nothing of how a target is written.
"""

import shlex
from dataclasses import dataclass

from studio.export import studio_folder
from studio.export.compressed_tensors import target as compressed_tensors_target
from studio.export.gguf import target as gguf_target
from studio.export.mlx import target as mlx_target
from studio.export.onnx import target as onnx_target
from studio.export.openvino import target as openvino_target
from studio.export.target import Target
from studio.export.targets import TARGETS


@dataclass(frozen=True)
class Program:
    """One program."""

    name: str
    target: str
    """The name of the target that it loads, ``""`` where the studio writes none for it yet."""
    command: str
    """What is typed to run the file: ``{file}`` is its name, ``{name}`` that without its ending, both quoted."""
    words: str = "program"
    """The catalogues' table of its words."""

    @property
    def form(self) -> Target | None:
        """The target that it loads."""
        return TARGETS.get(self.target)

    def commands(self, file: str, name: str) -> str:
        """Return what is typed for this file."""
        return self.command.format(file=shlex.quote(file), name=shlex.quote(name.lower()))

    @property
    def title_key(self) -> str:
        """The catalogues' key of what it is called."""
        return f"{self.words}.{self.name}.title"

    @property
    def becomes_key(self) -> str:
        """The catalogues' key of what the file becomes there."""
        return f"{self.words}.{self.name}.{'becomes' if self.words == 'program' else 'loads'}"


_GGUF, _MLX, _OPENVINO, _ONNX, _COMPRESSED_TENSORS, _STUDIO = (
    module.TARGET.name
    for module in (gguf_target, mlx_target, openvino_target, onnx_target, compressed_tensors_target, studio_folder)
)
PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "ollama", _GGUF, "echo FROM ./{file} > Modelfile\nollama create {name} -f Modelfile\nollama run {name}"
        ),
        Program("lm_studio", _GGUF, "lms import {file}"),
        Program("llama_cpp", _GGUF, "llama-cli -m {file}\nllama-server -m {file}   # http://127.0.0.1:8080"),
        Program("mlx", _MLX, "unzip {file} -d mlx\npip install mlx-lm\nmlx_lm.chat --model mlx/*"),
        Program(
            "vllm",
            _COMPRESSED_TENSORS,
            "unzip {file} -d model\n"
            "vllm serve model/*   # pip install vllm; serves on http://127.0.0.1:8000\n"
            "python -m sglang.launch_server --model-path model/*   # or SGLang",
        ),
        Program(
            "transformers",
            _COMPRESSED_TENSORS,
            "unzip {file} -d model\npip install transformers compressed-tensors\ntransformers chat model/*",
        ),
        Program(
            "openvino",
            _OPENVINO,
            "unzip {file} -d openvino\npip install openvino-genai\n"
            "python -c 'import glob; from openvino_genai import LLMPipeline\n"
            'print(LLMPipeline(glob.glob("openvino/*")[0], "CPU").generate("Hello!", max_new_tokens=100))\'',
        ),
        Program(
            "transformers_js",
            _ONNX,
            "unzip {file} -d onnx\nnpm install @huggingface/transformers\n"
            'node -e \'import("@huggingface/transformers").then(async ({{ env, pipeline }}) => {{\n'
            '  env.localModelPath = "onnx/";\n'
            '  const answer = await pipeline("text-generation", fs.readdirSync("onnx")[0]);\n'
            '  console.log(await answer("The capital of France is", {{ max_new_tokens: 50 }}));\n'
            "}})'",
        ),
        Program(
            "onnxruntime",
            _ONNX,
            "unzip {file} -d onnx\npip install onnxruntime-genai\n"
            "python -c 'import glob, onnxruntime_genai as og\n"
            'model = og.Model(glob.glob("onnx/*")[0])\n'
            "tokenizer, settings = og.Tokenizer(model), og.GeneratorParams(model)\n"
            "settings.set_search_options(max_length=100)\n"
            "generator = og.Generator(model, settings)\n"
            'generator.append_tokens(tokenizer.encode("The capital of France is"))\n'
            "while not generator.is_done(): generator.generate_next_token()\n"
            "print(tokenizer.decode(generator.get_sequence(0)))'",
        ),
        Program("studio", _STUDIO, "unzip {file}\npython -m studio chat {name}"),
    )
}
"""By name, in the order of the page."""


def known() -> dict[str, Program]:
    """Return all programs, and in their place the targets that none of them loads, by name."""
    loaded = {program.target for program in PROGRAMS.values()}
    return PROGRAMS | {name: Program(name, name, "", "target") for name in TARGETS if name not in loaded}


DEFAULT = "ollama"
