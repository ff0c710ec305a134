"""Fits, you lose, take: the three answers that stay in sight, as HTML. Pure; what is from outside is escaped."""

import math
from html import escape

from studio.base.text import text
from studio.base.units import format_bytes
from studio.planning.hosts import PROGRAM, Fit
from studio.session.compressed_copy import export_name
from studio.session.decision import Loss
from studio.session.session import Session

FINE = 0.01
"""Nats; less has a digit more."""
LEAST = 1e-5
"""Nats; what was found to be less is said to be less, and no more."""


def verdict(session: Session, language: str) -> str:
    """Return the three tiles; what is only predicted is hollow, what was measured is solid with its error."""
    tiles = (_fits(session, language), _lose(session, language), _take(session, language))
    return f'<div class="verdict">{"".join(tiles)}</div>'


def host_name(session: Session, language: str) -> str:
    """Return what the machine is called that the model is to run on."""
    return text(f"host.{session.decision.host.name}", language)


def how_often(share: float, language: str) -> str:
    """Return how often the first choice differs, in a few words: ``"1 in 6"``."""
    if share < 0.001:
        return text("verdict.never", language)
    return text("verdict.often", language) if share > 2 / 3 else text("verdict.times", language, count=_times(share))


def _times(share: float) -> int:
    return max(2, round(1 / share))


def _fits(session: Session, language: str) -> str:
    fit = session.decision.fit()
    if fit is None:
        return _tile("fits", "pending", "fits", text("verdict.waiting", language), "", language)
    memory = format_bytes(fit.host.memory) if fit.host.memory else "–"
    key = "fits_yes" if fit.fits else "fits_no"
    said = text(f"verdict.{key}", language, need=format_bytes(fit.need), memory=memory)
    kind = "yes" if fit.fits else "no"
    return _tile("fits", kind, "fits", f"{'✓' if fit.fits else '✗'} {said}", _parts(session, fit, language), language)


def _parts(session: Session, fit: Fit, language: str) -> str:
    """Return what the bytes are made of, and how fast it can go there."""
    words = text(
        "verdict.parts",
        language,
        weights=format_bytes(fit.weights),
        cache=format_bytes(fit.cache),
        program=format_bytes(PROGRAM),
    )
    speed = fit.tokens_per_second
    if not fit.fits:
        free = text("verdict.room", language, available=format_bytes(fit.host.available))
        return f"{words} · {free}"
    return words if speed is None else f"{words} · {text('verdict.speed', language, speed=f'{speed:,.0f}')}"


def _lose(session: Session, language: str) -> str:
    loss = session.decision.loss()
    if loss is None:
        key = "loss_unknown" if session.model.has_figures else "loss_later"
        return _tile(
            "lose", "pending", "lose", text("verdict.loss_none", language), text(f"verdict.{key}", language), language
        )
    share = how_often(loss.differs, language)
    key = "lose" if loss.source != "predicted" else "lose_bound" if loss.is_bound else "lose_about"
    kind = "hollow" if loss.source == "predicted" else "solid"
    return _tile("lose", kind, "lose", text(f"verdict.{key}", language, often=share), figure(loss, language), language)


def figure(loss: Loss, language: str) -> str:
    """Return a loss as a KL divergence, with where it is known from."""
    source = text(f"verdict.{loss.source}", language)
    if loss.source != "predicted" and loss.kld < LEAST:
        return text("verdict.kld", language, kld=f"<\u2009{LEAST:f}".rstrip("0"), source=source)
    digits = 3 if loss.kld >= FINE else 4
    if 0 < loss.kld < FINE / 10:  # two digits that say something
        digits = 1 - math.floor(math.log10(loss.kld))
    error = "" if loss.standard_error is None else f" ± {loss.standard_error:.{digits}f}"
    about = "" if loss.source != "predicted" else "≲\u2009" if loss.is_bound else "~\u2009"
    number = f"{loss.kld:.{digits}f}" if loss.source != "predicted" else f"{loss.kld:.2g}"
    return text("verdict.kld", language, kld=f"{about}{number}{error}", source=source)


def file_name(session: Session) -> str:
    """Return the name of the file that the program loads."""
    assert session.checkpoint is not None
    assert session.plan is not None
    return f"{export_name(session.checkpoint, session.plan)}{session.decision.target.suffix or '.zip'}"


def _take(session: Session, language: str) -> str:
    plan, checkpoint, decision = session.plan, session.checkpoint, session.decision
    if plan is None or checkpoint is None:
        return _tile("take", "pending", "take", text("verdict.waiting", language), "", language)
    program = text(decision.program.title_key, language)
    if decision.program.form is None or decision.target.refusal(plan, checkpoint) is not None:
        no = text("verdict.take_no", language, program=program)
        return _tile("take", "no", "take", f"✗ {no}", text("verdict.take_why", language), language)
    nbytes = decision.nbytes(plan)
    size = f"{nbytes:,} B" if plan.is_exact else f"~\u2009{format_bytes(nbytes)}"
    is_made = session.is_copy_of_plan
    words = text("verdict.take_made" if is_made else "verdict.take_planned", language, program=program, size=size)
    return _tile("take", "yes" if is_made else "plain", "take", file_name(session), words, language)


def _tile(name: str, kind: str, key: str, headline: str, below: str, language: str) -> str:
    """Return one tile: what is asked, the answer, what it is made of, and what that means behind a question mark."""
    label, why = escape(text(f"verdict.label_{key}", language)), escape(text(f"verdict.why_{key}", language))
    ask = escape(text("page.what", language))
    return (
        f'<div class="tile {kind}" data-tile="{name}"><div class="asked">{label}'
        f'<details class="what" name="what" data-keep="{name}">'
        f'<summary aria-label="{ask} {label}">?</summary><p>{why}</p></details></div>'
        f'<p class="answer">{escape(headline)}</p><p class="below">{escape(below)}</p></div>'
    )
