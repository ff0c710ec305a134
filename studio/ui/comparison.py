"""Two runs side by side: what one loses less on the same text, both maps on one scale, both answers. Pure."""

from html import escape

from studio.base.text import text
from studio.evaluation.figures import paired
from studio.planning import predicted_damage
from studio.planning.layer_figure import Known
from studio.session.runs import Run
from studio.session.session import Session
from studio.ui.heatmap import heatmap
from studio.ui.runs_table import plan_name
from studio.ui.sample_answers import side_by_side

CERTAIN = 2.0
"""Standard errors from which a difference is called one."""


def comparison(session: Session, language: str) -> str:
    """Return the comparison of the two runs that are ticked; how to get one where there could be."""
    pair = session.decision.runs.pair()
    if pair is None:
        words = text("runs.tick_two", language)
        return f'<p class="hint">{escape(words)}</p>' if len(session.decision.runs) > 1 else ""
    said, maps = escape(difference(*pair, language)), "".join(_map(run, session, language) for run in pair)
    return f'<p class="paired">{said}</p><div class="pair">{maps}</div>{_answers(pair, language)}'


def difference(first: Run, second: Run, language: str) -> str:
    """Return which of two runs loses less, in a sentence: by how much on the same windows of text."""
    one, other = first.evaluation, second.evaluation
    gain = None
    if one is not None and other is not None and (first.model, first.measured_on) == (second.model, second.measured_on):
        gain = paired(one.kld_of_windows, other.kld_of_windows)
    if one is None or other is None or gain is None:
        return text("runs.unpaired", language)
    error = gain.standard_error
    margin = "" if error is None else f" ± {error:.4f}"
    better, worse = (first, second) if gain.mean > 0 else (second, first)
    facts = {
        "gain": f"{abs(gain.mean):.4f}{margin}",
        "windows": min(len(one.kld_of_windows), len(other.kld_of_windows)),
        "low": f"{one.kld.mean:.4f}",
        "high": f"{other.kld.mean:.4f}",
    }
    if error is None or abs(gain.mean) < CERTAIN * error:
        return text("runs.alike", language, first=first.number, second=second.number, **facts)
    return text("runs.better", language, better=better.number, worse=worse.number, **facts)


def _map(run: Run, session: Session, language: str) -> str:
    """Return a run's map of predicted damage, as a picture: the scale of that figure is the same for every plan."""
    model = session.model
    title = escape(f"{text('runs.on_map', language, number=run.number)} · {plan_name(run)}")
    if model.checkpoint is None or model.checkpoint.name != run.model:
        return f"<div><h4>{title}</h4></div>"
    known = Known(run.plan, model.known, model.sampled, model.figures)
    errors = predicted_damage.FIGURE.on_map(known)
    picture = heatmap(run.plan, errors, language, figure=predicted_damage.FIGURE)
    return f'<div><h4>{title}</h4><div role="img" aria-label="{title}"><div inert>{picture}</div></div></div>'


def _answers(pair: tuple[Run, Run], language: str) -> str:
    """Return what both answered to the same questions."""
    asked = [{turn.prompt: turn.answers.replies[-1] for turn in run.answers if turn.answers.replies} for run in pair]
    both = [prompt for prompt in asked[0] if prompt in asked[1]]
    names = [text("runs.number", language, number=run.number) for run in pair]
    return "".join(
        side_by_side(prompt, [(name, escape(said[prompt].text)) for name, said in zip(names, asked, strict=True)])
        for prompt in both
    )
