"""What the menus of the plan offer, in the visitor's language. Pure."""

from collections.abc import Sequence

from studio.base.text import text
from studio.checkpoint.layers import ratio_defining
from studio.planning.figures import FIGURES
from studio.planning.option import Option
from studio.quantization.scheme import GROUP_SIZES, WHOLE_CHANNEL, Mode, Scheme, backup_modes
from studio.session.session import Session
from studio.ui.map_text import MAX_CHIPS, MAX_NAMES


def modes() -> list[Mode]:
    """Return all modes in the order of the menu: what most people want first."""
    return sorted(Mode, key=lambda mode: mode.stored_as.rank)


def scheme_choices(language: str) -> list[tuple[str, str]]:
    """Return the schemes a layer can be pinned to."""
    schemes = dict.fromkeys(str(Scheme.of(mode, size)) for mode in modes() for size in GROUP_SIZES)
    return [(text("map.kept", language), "none"), *((name, name) for name in schemes)]


def layer_choices(session: Session) -> list[str]:
    """Return patterns for every kind of projection, then every layer's own name (the first of very many)."""
    plan = session.plan
    if plan is None:
        return []
    weights = [a.layer for a in plan.assignments if a.layer.is_weight]
    kinds = dict.fromkeys(f"*.{layer.projection}" for layer in weights if layer.block is not None)
    return [*list(kinds)[:MAX_CHIPS], *(layer.name for layer in weights[:MAX_NAMES])]


def mode_choices(language: str) -> list[tuple[str, str]]:
    """Return the modes with what each is in a few words."""
    return [(text(f"plan.mode_{mode.value}", language), mode.value) for mode in modes()]


def group_choices(fitting: Sequence[int], language: str) -> list[tuple[str, int]]:
    """Return the group sizes that fit."""
    return [(text("plan.group_size_whole", language) if g == WHOLE_CHANNEL else str(g), g) for g in fitting]


def backup_choices(language: str, mode: Mode = Mode.INT4_ASYM) -> list[tuple[str, str]]:
    """Return the backup modes: the 8-bit integers, and the 8-bit float that belongs to a float mode."""
    whole = (backup for backup in backup_modes().values() if backup is not None and not backup.is_mixable)
    backups = dict.fromkeys((mode.default_backup, *whole))
    return [*((backup.value, backup.value) for backup in backups), (text("plan.backup_none", language), "none")]


def word_choices(option: Option, language: str) -> list[tuple[str, str]]:
    """Return the words that an option can be, each with what it means."""
    return [(text(f"plan.{option.key}_{word}", language), word) for word in option.among]


def colour_choices(language: str) -> list[tuple[str, str]]:
    """Return what the map can be coloured by."""
    return [(text(f"figure.{name}.choice", language), name) for name in FIGURES]


def group_info(session: Session, fitting: Sequence[int], language: str) -> str:
    """Return the group size's explanation, with the sizes that do not fit this model and why."""
    if not session.choice.mode.is_grouped:
        size = session.choice.primary.group_size
        return text("plan.group_size_8bit" if size < 0 else "plan.group_size_fixed", language, size=size)
    words = text("plan.group_size_info", language)
    misfits = [str(size) for size in GROUP_SIZES if size not in fitting]
    if session.checkpoint is None or not misfits:
        return words
    widths = sorted({layer.matrix[1] for layer in ratio_defining(session.checkpoint.layers)})
    comma = text("plan.group_size_separator", language)
    shown = comma.join(str(width) for width in widths[:6])
    return f"{words} {text('plan.group_size_misfits', language, sizes=comma.join(misfits), widths=shown)}"
