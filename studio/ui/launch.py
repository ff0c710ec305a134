"""The server: one call that prepares the built-in model, builds the page and serves it.

Knows nothing of what is on the page.
"""

import contextlib
import gc
import os
import socket
import sys
import threading

import gradio as gr
from starlette.middleware import Middleware

from studio.base import workers
from studio.base.assets import asset
from studio.base.errors import ResourceError
from studio.base.limits import limits
from studio.base.private_folder import make_private
from studio.base.settings import settings
from studio.base.workspace import sessions_folder
from studio.checkpoint import hub, open_model
from studio.runtime import machine
from studio.ui.door.door import Door
from studio.ui.door.house import house_of, names
from studio.ui.events import THREADS, wire
from studio.ui.housekeeping import keep_tidy, tidy
from studio.ui.page import build
from studio.ui.presence import ATTENDANCE, Presence, attend
from studio.ui.queued_calls import QueuedCalls
from studio.ui.watching import log
from studio.ui.watching.jobs import listen
from studio.ui.watching.metrics import Metrics
from studio.ui.watching.port import Port

MOST_STATES = 1000
"""Visits that Gradio keeps the state of, also of those whose page never came: ten thousand by default."""


def launch(host: str | None = None, port: int | None = None, block: bool = True) -> str:
    """Serve the page and return its address; ``block`` waits until the server ends.

    ``host`` and ``port`` override the settings; port 0 takes a free one.
    """
    if host is not None:
        settings().host = host
    settings().cache_dir.mkdir(parents=True, exist_ok=True)
    workers.warm_up()  # tokenizers are read in children, whether models are or not
    _close_folders()
    tidy()
    if open_model.builtin_file() is not None:
        with contextlib.suppress(Exception):  # the page says what is wrong when someone picks it
            for _ in open_model.open_model(open_model.BUILTIN, paths=False):
                pass
    gc.freeze()  # what is loaded by now stays: looking through it again would cost a third of a second, now and then
    threading.Thread(target=hub.reachable, daemon=True).start()  # the first visitor is told at once where it is silent
    blocks, page = build()
    with blocks:
        wire(page, blocks)
    attend(blocks, ATTENDANCE)
    blocks.queue(default_concurrency_limit=1, max_size=limits().queue)
    calls = QueuedCalls(blocks)
    watch = _watching(calls)
    _, address, _ = blocks.launch(
        server_name=settings().host,
        server_port=(settings().port if port is None else port) or _free_port(settings().host),
        theme=_theme(),
        css_paths=[asset("style.css")],
        favicon_path=asset("logo.png") if asset("logo.png").exists() else None,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        share=False,
        quiet=True,
        show_error=False,
        max_file_size="1mb",
        max_threads=THREADS,
        state_session_capacity=MOST_STATES,
        prevent_thread_lock=True,
        app_kwargs={
            "middleware": [
                Middleware(Door, house=house_of(calls, watch.refused)),
                Middleware(Presence, attendance=ATTENDANCE),
            ]
        },
    )
    keep_tidy()
    machine.measure()  # once the port is had: a program that ends while a thread is in torch's code is aborted
    print(f"Quantization Studio: {address}", flush=True)
    if block:
        blocks.block_thread()
    return address


def _close_folders() -> None:
    """Keep what visitors make and send from other users of the machine: Gradio's own folder is one for all of them."""
    with contextlib.suppress(OSError):  # a cache that is another's: who writes there is told
        make_private(sessions_folder())
    with contextlib.suppress(OSError):
        if "GRADIO_TEMP_DIR" not in os.environ:
            os.environ["GRADIO_TEMP_DIR"] = str(make_private(settings().cache_dir / "page"))


def _watching(calls: QueuedCalls) -> Metrics:
    """Begin to tell the owner of each job, where the settings say. Raises ResourceError, or OSError for the log."""
    here = settings()
    metrics = Metrics(calls.count, here.cache_dir)
    listen(metrics.ended)
    log_to = here.log or (log.STDERR if names(here.host).is_open else "")
    if log_to:
        log.begin(log_to)
        listen(log.write)
    if here.metrics_port is not None:
        try:
            port = Port(here.metrics_host, here.metrics_port, metrics.text, names(here.metrics_host))
        except OSError as error:
            raise ResourceError("cannot_serve", where=f"{here.metrics_host}:{here.metrics_port}") from error
        print(f"Metrics: http://{here.metrics_host}:{port.server_port}/metrics", file=sys.stderr, flush=True)
    return metrics


def _free_port(host: str) -> int:
    """Return a port that nobody listens on now; gradio knows no port 0."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _theme() -> gr.themes.Base:
    """Return the look: the system's fonts, so that nothing is fetched, and one accent colour."""
    fonts = ("system-ui", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif")
    base = gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=("ui-monospace", "monospace"), radius_size="md"
    )
    # Gradio's own primary_500 and neutral_400 have 3.7 and 2.6 to 1 against their grounds; WCAG AA asks for 4.5.
    return base.set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
