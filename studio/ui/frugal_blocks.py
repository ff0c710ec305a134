"""Gradio's page, in which an answer costs what it changes. Knows none of its components.

Gradio makes every output of an event anew that the answer does not name: a hundred components here, at two to three
milliseconds of the one thread that serves all visitors, at each of the steps of a progress bar.
"""

import copy
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.state_holder import SessionState


class FrugalBlocks(gr.Blocks):
    """A page whose events answer with a mapping from components to what is new of them."""

    async def postprocess_data(
        self, block_fn: BlockFunction, predictions: Any, state: SessionState | None
    ) -> list[Any]:
        """Return what is sent for each output: of those that are not named, that nothing is new.

        Raises ValueError for a component that is no output, as Gradio does.
        """
        if not isinstance(predictions, dict) or not all(isinstance(key, gr.blocks.Block) for key in predictions):
            return await super().postprocess_data(block_fn, predictions, state)
        news = {component._id: change for component, change in predictions.items() if change != gr.skip()}
        named = [output for output in block_fn.outputs if output._id in news]
        if len(named) < len(news):
            raise ValueError(f"{block_fn.name} names components that are none of its outputs")
        sent: list[Any] = []
        if named:
            fewer = copy.copy(block_fn)
            fewer.outputs = named
            changes = [news[output._id] for output in named]
            sent = await super().postprocess_data(fewer, changes if len(changes) > 1 else changes[0], state)
        by_id = {output._id: each for output, each in zip(named, sent, strict=True)}
        return [by_id.get(output._id, None if output.stateful else gr.skip()) for output in block_fn.outputs]
