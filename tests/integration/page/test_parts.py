"""What a handler changes is among its event's outputs: Gradio loses the whole of an answer that names another."""

from studio.session.session import Session
from studio.ui import decision_updates
from tests.page_visitor import Visitor


def test_what_a_measured_drift_changes_is_among_its_outputs(visitor: Visitor) -> None:
    session: Session = visitor.session
    shown = decision_updates.measured(visitor.page, session, "en")
    assert shown.keys() <= set(decision_updates.measured_parts(visitor.page))
