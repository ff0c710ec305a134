"""What each program makes of the plan, as HTML. Pure; everything from outside is escaped here."""

from html import escape

from studio.base.errors import UserError
from studio.base.text import text
from studio.base.units import format_bytes
from studio.export.holding import Held, every_target
from studio.export.read_back import Verified
from studio.export.runners import known
from studio.session.session import Session
from studio.ui.html import notice, table
from studio.ui.verdict import file_name

NOISE = 0.01
"""Nats a token. Sums in bf16 (0.001 for the built-in model) and llama.cpp's 8-bit activations make less of the same
numbers; another tokenizer, or rows out of order, make more."""


def refusal(session: Session) -> UserError | None:
    """Return why the program cannot read the plan on show; None where it can, or there is no plan or no file for it."""
    plan, checkpoint, decision = session.plan, session.checkpoint, session.decision
    if plan is None or checkpoint is None or decision.program.form is None:
        return None
    return decision.target.refusal(plan, checkpoint)


def is_of_scheme(error: UserError | None) -> bool:
    """Return whether another plan would do: it is the plan's schemes that do not go."""
    return error is not None and error.key.endswith("_scheme")


def reads(session: Session, language: str) -> str:
    """Return whether the chosen program reads the plan on show, what that becomes, and what to type."""
    plan, checkpoint, program = session.plan, session.checkpoint, session.decision.program
    if plan is None or checkpoint is None:
        return ""
    title = text(program.title_key, language)
    becomes = f'<p class="facts">{escape(text(program.becomes_key, language))}</p>'
    if program.form is None:
        return _line(False, text("export.no_file", language, program=title)) + becomes
    error = refusal(session)
    if error is not None:
        return _line(False, text("export.reads_not", language, program=title)) + notice(error.sentence(language))
    name = file_name(session)
    size = f"{'' if plan.is_exact else '~' + chr(0x2009)}{session.decision.nbytes(plan):,} B"
    yes = _line(True, text("export.reads", language, program=title, file=name, size=size))
    cautions = "".join(notice(each.sentence(language)) for each in session.decision.target.cautions(plan))
    return (
        yes
        + becomes
        + cautions
        + _code(program.commands(name, name.removesuffix(session.decision.target.suffix or ".zip")))
    )


def others(session: Session, language: str) -> str:
    """Return what every program makes of the plan, a row each; nothing while nobody looks."""
    plan, checkpoint = session.plan, session.checkpoint
    if plan is None or checkpoint is None or not session.looks_at_others:
        return ""
    found = {each.target.name: each for each in every_target(plan, checkpoint, session.model.plan)}
    columns = [text(f"export.{name}", language) for name in ("program", "bytes", "bits", "holds")]
    rows = [
        (text(program.title_key, language), *_held(found.get(program.target), language)) for program in known().values()
    ]
    left_out = "" if checkpoint.left_out is None else notice(checkpoint.left_out.sentence(language))
    return table(columns, rows) + left_out


def _held(held: Held | None, language: str) -> tuple[str, str, str]:
    """Return a row's cells after the program: bytes, bits a weight, what becomes of the plan."""
    if held is None:
        return "", "", text("export.no_form", language)
    if held.plan is None or held.nbytes is None:
        return "", "", "✗ " + ("" if held.reason is None else held.reason.sentence(language))
    about = "" if held.plan.is_exact else "~\u2009"
    if held.becomes is None:
        said = "✓ " + text("export.as_it_is", language)
    else:
        said = "✗ " + text("export.becomes", language, scheme=held.becomes.label)
    cautions = "".join(f" {each.sentence(language)}" for each in held.cautions)
    return f"{about}{held.nbytes:,}", f"{held.bits_per_weight:.2f}", said + cautions


def _line(is_good: bool, words: str) -> str:
    sign, kind = ("✓", "good") if is_good else ("✗", "warn")
    return f'<p class="reads {kind}"><b aria-hidden="true">{sign}</b> {escape(words)}</p>'


def _code(words: str) -> str:
    return f'<pre tabindex="0"><code>{escape(words)}</code></pre>' if words else ""


def verified(found: Verified, language: str) -> str:
    """Return what reading the file back told, a row for each reader."""
    rows = [(text("verify.studio", language), _kld(found.reader.mean), f"{found.difference:.2g}")]
    other = found.llama_cpp
    if other is not None:
        rows.append(("llama.cpp", _kld(other.kld.mean), f"{other.difference:.2g}"))
    columns = [text(f"verify.{name}", language) for name in ("reader", "kld", "logits")]
    is_same = other is None or (other.has_same_tokens and other.kld.mean < NOISE)
    key, kind = ("verify.same", "good") if is_same else ("verify.other", "error")
    said = notice(text(key, language, tensors=found.tensors, tokens=found.tokens), kind)
    answer = text("verify.answer", language, answer=found.answer.strip()[:120])
    noise = text("verify.noise", language, bound=NOISE)
    missing = [] if other is not None else [text("verify.no_llama_cpp", language)]
    hints = "".join(f'<p class="hint">{escape(words)}</p>' for words in (answer, noise, *missing))
    return said + table(columns, rows) + hints


def _kld(nats: float) -> str:
    return f"{nats:.1e}"


def made(session: Session, size: int, name: str, language: str) -> str:
    """Return what was made: the file's size, which is its weights' and what else it holds."""
    return notice(text("stage.ready", language, size=format_bytes(size), name=name), "good")
