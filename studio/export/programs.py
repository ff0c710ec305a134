"""What a card says of how a file is run, by the target that wrote it: exact commands, with the file's own name.
Knows nothing of what is in the file.

A file's name has no mark that ends a code block or that a shell acts on within quotes
(:class:`studio.checkpoint.recipe.Exported`). A target that is not here is a file that its card does not say how to run.
"""

import re
from collections.abc import Callable, Mapping
from shlex import quote

from studio.checkpoint.recipe import Exported, Recipe


def _gguf(made: Exported, recipe: Recipe) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", made.file.removesuffix(".gguf").lower()).strip("-.") or "model"
    file = quote(made.file)
    quantization = f":{recipe.choices.mix.upper()}" if recipe.choices.mix != "none" else ""
    return f"""## Run `{made.file}`

Ollama, from this file, and from the Hub once it is there (put your own name and repository in):

```
echo "FROM ./{made.file}" > Modelfile
ollama create {name} -f Modelfile
ollama run {name}

ollama run hf.co/USER/REPOSITORY{quantization}
```

llama.cpp, in the terminal, and as a server that speaks OpenAI's API at http://127.0.0.1:8080:

```
llama-cli -m {file}
llama-server -m {file} --port 8080
```

LM Studio: open the file in its folder of models, or

```
lms import {file}
```
"""


def _studio(made: Exported, _: Recipe) -> str:
    return f"""## Run `{made.file}`

It is the studio's own folder in a zip: unpacked, `python -m studio chat FOLDER` answers in a copy of the studio's
repository. Other programs refuse it.
"""


PROGRAMS: Mapping[str, Callable[[Exported, Recipe], str]] = {"gguf": _gguf, "studio": _studio}
"""By a target's name."""
