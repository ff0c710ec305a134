"""Session -> what changes on the decision's components: verdict, presets, answers, chart, tabs, address. Pure."""

from typing import Any

import gradio as gr
from gradio.blocks import Block

from studio.base.text import text
from studio.planning.presets import CUSTOM
from studio.session.expected import expected
from studio.session.session import Session
from studio.ui import preset_choices, runs_table, take
from studio.ui.address import address as address_of
from studio.ui.comparison import comparison
from studio.ui.front_chart import front_chart
from studio.ui.page import Page
from studio.ui.sample_answers import COUNT, sample_answers
from studio.ui.verdict import verdict as verdict_of

Updates = dict[Block, Any]


def verdict(page: Page, session: Session, language: str) -> Updates:
    """Return the three answers."""
    return {page.where.verdict: verdict_of(session, language)}


def planned(page: Page, session: Session, language: str) -> Updates:
    """Return what follows from the plan beside its figures: which preset it is, who reads it, what the address says."""
    preset = session.decision.preset
    error = take.refusal(session)
    return {
        page.presets.preset: gr.update(value=preset),
        page.presets.make: gr.update(value=make_words(session, language)),
        page.plan.box: gr.update(visible=preset == CUSTOM),
        page.export.reads: take.reads(session, language),
        page.export.table: take.others(session, language),
        page.export.switch: gr.update(visible=take.is_of_scheme(error)),
        **button(page, session),
        **address(page, session),
    }


def button(page: Page, session: Session) -> Updates:
    """Return the button of the file: there is one of a copy that the program reads."""
    is_there = session.copy.folder is not None and session.decision.program.form is not None
    return {page.export.button: gr.update(interactive=is_there)}


def options(page: Page, session: Session, language: str) -> Updates:
    """Return the presets with their sizes and losses, in words and on the chart."""
    decision = session.decision
    return {
        page.presets.preset: gr.update(choices=preset_choices.preset_choices(session, language), value=decision.preset),
        **front(page, session, language),
    }


def program(page: Page, session: Session) -> Updates:
    """Return the program in both places where it can be picked.

    Not part of what follows from a plan: an answer to one click must not set back what was picked since.
    """
    name = session.decision.program.name
    return {page.where.program: gr.update(value=name), page.export.program: gr.update(value=name)}


def front(page: Page, session: Session, language: str) -> Updates:
    """Return the chart of size against loss."""
    return {page.front.chart: front_chart(session, language)}


def samples(page: Page, session: Session, language: str) -> Updates:
    """Return the sample questions and their answers so far."""
    return {page.samples: sample_answers(session, language)}


def runs(page: Page, session: Session, language: str) -> Updates:
    """Return the table of what was made."""
    return {
        page.runs.table: runs_table.runs_table(session, language),
        page.runs.comparison: comparison(session, language),
    }


def measured(page: Page, session: Session, language: str) -> Updates:
    """Return what a loss that was measured changes: the verdict, the row of its run, the chart."""
    return {
        **verdict(page, session, language),
        **runs(page, session, language),
        **front(page, session, language),
    }


def measured_parts(page: Page) -> list[Block]:
    """Return the components of :func:`measured`."""
    return [page.where.verdict, page.runs.table, page.runs.comparison, page.front.chart]


def address(page: Page, session: Session) -> Updates:
    """Return what the page's address is to say."""
    return {page.address: gr.update(value=address_of(session))}


def make_words(session: Session, language: str) -> str:
    """Return what the one button says: about how long it takes."""
    if session.plan is None:
        return text("make.button", language)
    seconds = expected(session, COUNT).total
    return text("make.button_time", language, time=preset_choices.duration(seconds, language))


def at_rest(page: Page) -> Updates:
    """Return the buttons as they are while nothing is made."""
    return {page.presets.make: gr.update(interactive=True), page.presets.stop: gr.update(interactive=False)}


def judge_at_rest(page: Page) -> Updates:
    """Return the buttons as they are while no file of others is judged."""
    return {page.front.judge: gr.update(interactive=True), page.front.halt: gr.update(interactive=False)}
