"""The page: the only code that imports gradio or plotly. Decides nothing about models; reads, calls, presents."""

from studio.ui.launch import launch

__all__ = ["launch"]
