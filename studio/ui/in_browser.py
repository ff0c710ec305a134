"""A compressed model that answers in the visitor's own browser: which script runs it there, and where it comes from.

transformers.js and onnxruntime's build for browsers come from a public mirror of npm, at one version each, and a
browser takes them only if they are what they were when these checksums were made: the mirror can serve nothing else.
Nothing of the model goes there. Knows no session and no component.
"""

import json
from typing import Any

MIRROR = "https://cdn.jsdelivr.net/npm/"
FILES = {
    "library": (
        "@huggingface/transformers@4.3.2/dist/transformers.min.js",
        "sha384-xFDNfwR3J/vPYzGjMr1VSM8LHIcA+ii2Ha4x+6WAuISKpT9I0dxgF/mVQW+I0kSd",
    ),
    "mjs": (
        "onnxruntime-web@1.31.0-dev.20260914-8d85527a0/dist/ort-wasm-simd-threaded.asyncify.mjs",
        "sha384-ik7L7J2uXfXmGuWHh3yOUDPpUslz/dJjcvZgdX5hcItLjxlkEpUF7mpCcATr3Dg8",
    ),
    "wasm": (
        "onnxruntime-web@1.31.0-dev.20260914-8d85527a0/dist/ort-wasm-simd-threaded.asyncify.wasm",
        "sha384-JuzrCV6BUmTUbsgNhgU94qo0vZ4l3w0VqgQAKPm0La2hXL9kmv8P9pGenfsWJY9c",
    ),
}
"""What is fetched: its path at the mirror, and its checksum as a browser compares it (Subresource Integrity)."""
TOKENS = 60
"""Of an answer."""
ANSWER = '<p id="in-browser-answer" role="status"></p>'

_SOURCES = json.dumps({name: [MIRROR + path, checksum] for name, (path, checksum) in FILES.items()})
SCRIPT = (
    (
        """async (asked) => {
  const said = document.querySelector('#in-browser-answer');
  if (!asked || !asked.folder || !said) return;
  const here = window.studioInBrowser ??= {};
  if (here.busy) { here.stopper?.interrupt(); return; }
  here.busy = true;
  const say = (words) => { said.textContent = words; };
  const sources = SOURCES;
  const fetched = async ([url, integrity], type) => {
    const answer = await fetch(url, {integrity, credentials: 'omit', referrerPolicy: 'no-referrer'});
    return URL.createObjectURL(new Blob([await answer.arrayBuffer()], {type}));
  };
  try {
    say(asked.words.loading);
    if (!here.library) {
      const library = await import(await fetched(sources.library, 'text/javascript'));
      library.env.backends.onnx.wasm.wasmPaths = {
        mjs: await fetched(sources.mjs, 'text/javascript'), wasm: await fetched(sources.wasm, 'application/wasm'),
      };
      library.env.allowRemoteModels = false;
      library.env.allowLocalModels = true;
      library.env.useBrowserCache = false;
      here.library = library;
    }
    const {pipeline, TextStreamer, InterruptableStoppingCriteria, env} = here.library;
    const root = new URL(window.gradio_config?.root ?? location.origin, location.href);
    const folder = root.pathname.replace(/\\/$/, '') + asked.folder;
    if (here.folder !== folder) {
      const before = here.model;
      here.model = here.folder = null;
      if (before) await before.dispose();
      const cut = folder.lastIndexOf('/');
      env.localModelPath = folder.slice(0, cut + 1);
      const device = navigator.gpu && await navigator.gpu.requestAdapter() ? 'webgpu' : 'wasm';
      const progress_callback = (at) => {
        if (at.status === 'progress') say(`${asked.words.loading} ${at.file} ${Math.round(at.progress)} %`);
      };
      here.model = await pipeline('text-generation', folder.slice(cut + 1), {device, progress_callback});
      here.folder = folder;
    }
    here.stopper = new InterruptableStoppingCriteria();
    let text = '';
    say(asked.words.answering);
    const streamer = new TextStreamer(here.model.tokenizer, {
      skip_prompt: true, skip_special_tokens: true, callback_function: (piece) => { text += piece; say(text); },
    });
    const given = here.model.tokenizer.chat_template ? [{role: 'user', content: asked.prompt}] : asked.prompt;
    await here.model(given, {max_new_tokens: TOKENS, streamer, stopping_criteria: here.stopper});
    said.dataset.done = String(Number(said.dataset.done ?? 0) + 1);
  } catch (error) {
    say(`${asked.words.failed} ${String(error).slice(0, 200)}`);
  } finally {
    here.stopper = null;
    here.busy = false;
  }
}"""
    )
    .replace("SOURCES", _SOURCES)
    .replace("TOKENS", str(TOKENS))
)
"""Fetches the library and the model, and writes the answer as it comes; pressed again meanwhile, it ends the answer, or
changes nothing while they are fetched."""


def asked(folder: str, prompt: str, words: dict[str, str]) -> dict[str, Any]:
    """Return what the script is asked: the model's folder from the page's own address on, the message, what is said
    meanwhile."""
    return {"folder": folder, "prompt": prompt, "words": words}
