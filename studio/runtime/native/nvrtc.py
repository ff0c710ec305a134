"""CUDA C++ -> kernels on this machine's GPU, through NVRTC, which torch brings along, and the driver: no compiler, no
toolkit and no headers are needed. Compiled once a machine and kept in the cache folder.

Knows nothing of what the kernels do.
"""

import ctypes
import hashlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch

from studio.base.compiler import FOLDER
from studio.base.private_folder import code_folder, is_sealed, seal
from studio.base.settings import settings

LOG = logging.getLogger(__name__)
DYNAMIC_SHARED_BYTES = 8
"""``CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES``: more than 48 KB have to be asked for."""
MOST_SHARED_BYTES = 97
"""``CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN``."""
PROGRAMMATIC = 6
"""``CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION``."""
HOPPER = (9, 0)
"""The first GPUs on which a kernel can begin before the one in front of it has ended."""

Dim = tuple[int, int, int]


class _Attribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_char * 60)]


class _Config(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    ]


class Launch:
    """A kernel with all it needs: calling it puts it on torch's current stream."""

    def __init__(
        self, function: ctypes.c_void_p, grid: Dim, threads: int, args: Sequence[object], shared: int, overlaps: bool
    ) -> None:
        self._function, self._driver = function, _driver()
        self._args = tuple(args)
        self._pointers = (ctypes.c_void_p * len(args))(*(ctypes.addressof(arg) for arg in args))  # type: ignore[arg-type]
        self._attribute = _Attribute(PROGRAMMATIC, 0, 1)
        overlaps = overlaps and torch.cuda.get_device_capability() >= HOPPER
        self._config = _Config(*grid, threads, 1, 1, shared, None, ctypes.pointer(self._attribute), int(overlaps))

    def __call__(self) -> None:
        self._config.stream = torch.cuda.current_stream().cuda_stream
        config = ctypes.byref(self._config)
        _check(self._driver.cuLaunchKernelEx(config, self._function, self._pointers, None), self._driver)


class Module:
    """The kernels of one source, for the current device."""

    def __init__(self, source: Path, names: Sequence[str], defines: Sequence[str] = (), checks: str = "") -> None:
        """``names``: kernels, also template instances such as ``"product<4, true>"``. ``checks``: what has to compile
        behind the source.

        Raises RuntimeError when the source does not compile, OSError where there is no NVRTC.
        """
        torch.cuda.synchronize()  # there is a context from here on
        self._driver = _driver()
        image, lowered = _image(source, names, defines, checks)
        self._module = ctypes.c_void_p()
        _check(self._driver.cuModuleLoadData(ctypes.byref(self._module), image), self._driver)
        self._shared: dict[str, int] = {}
        self._functions = {name: self._function(low) for name, low in zip(names, lowered, strict=True)}

    def launch(
        self, name: str, grid: Dim, threads: int, *args: object, shared: int = 0, overlaps: bool = True
    ) -> Launch:
        """Return a launch of a kernel with these ctypes arguments and ``shared`` bytes of dynamic shared memory.

        ``overlaps``: it may begin before the kernel in front of it has ended, for whose results it waits itself.
        """
        function = self._functions[name]
        if shared > max(self._shared.get(name, 0), 48 << 10):
            self._shared[name] = shared
            _check(self._driver.cuFuncSetAttribute(function, DYNAMIC_SHARED_BYTES, shared), self._driver)
        return Launch(function, grid, threads, args, shared, overlaps)

    def _function(self, lowered: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        _check(self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, lowered.encode()), self._driver)
        return function


def shared_memory() -> int:
    """Return the bytes of shared memory that a block of threads can have on the current device."""
    device, found = ctypes.c_int(), ctypes.c_int()
    _check(_driver().cuDeviceGet(ctypes.byref(device), torch.cuda.current_device()), _driver())
    _check(_driver().cuDeviceGetAttribute(ctypes.byref(found), MOST_SHARED_BYTES, device), _driver())
    return found.value


def is_available() -> bool:
    """Return whether kernels can be compiled and run here."""
    if not settings().native or not torch.cuda.is_available() or torch.version.cuda is None:
        return False
    try:
        _nvrtc(), _driver()
    except OSError as error:
        LOG.info("CUDA is used through torch alone: %s", error)
        return False
    return True


def _image(source: Path, names: Sequence[str], defines: Sequence[str], checks: str) -> tuple[bytes, list[str]]:
    """Return the machine code and the kernels' names in it, from the cache folder where they are."""
    major, minor = torch.cuda.get_device_capability()
    options = [f"--gpu-architecture=sm_{major}{minor}", f"-I{source.parent}", *(f"-D{define}" for define in defines)]
    texts = [file.read_text() for file in (source, *sorted(source.parent.glob("*.cuh")))]
    texts[0] += f"\n{checks}"
    key = hashlib.sha256(repr((texts, list(names), options[0], defines, torch.version.cuda)).encode()).hexdigest()[:16]
    try:
        folder = code_folder(settings().cache_dir / FOLDER)
        file = folder / f"{source.stem}-{key}.cubin"
        head, _, image = file.read_bytes().partition(b"\n")
        checksum, *lowered = head.decode().split(" ")
        if is_sealed(folder, " ".join(lowered).encode() + image, checksum):
            return image, lowered
    except (UnicodeDecodeError, ValueError, FileNotFoundError):
        pass
    except OSError as error:
        LOG.info("kernels are not kept: %s", error)
        return _compiled(texts[0], source.name, names, options)
    image, lowered = _compiled(texts[0], source.name, names, options)
    try:
        partial = file.with_suffix(f".{id(image)}")
        sealed = seal(folder, " ".join(lowered).encode() + image)
        partial.write_bytes(" ".join([sealed, *lowered]).encode() + b"\n" + image)
        partial.replace(file)  # whole or not at all
    except OSError as error:
        LOG.info("kernels are not kept: %s", error)
    return image, lowered


def _compiled(text: str, title: str, names: Sequence[str], options: Sequence[str]) -> tuple[bytes, list[str]]:
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), f"main-{title}".encode(), 0, None, None)
    try:
        for name in names:
            nvrtc.nvrtcAddNameExpression(program, name.encode())
        flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), flags):
            log = _filled(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            raise RuntimeError(f"{title} does not compile: {log.decode(errors='replace')[:2000]}")
        image = _filled(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        lowered = []
        for name in names:
            found = ctypes.c_char_p()
            nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(found))
            lowered.append((found.value or b"").decode())
        return image, lowered
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _filled(size_of: Callable[..., int], get: Callable[..., int], program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    get(program, buffer)
    return buffer.raw


def _check(result: int, driver: ctypes.CDLL) -> None:
    if result:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(result, ctypes.byref(text))
        raise RuntimeError(f"CUDA error {result}: {(text.value or b'').decode()}")


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


@cache
def _nvrtc() -> ctypes.CDLL:
    """Return NVRTC of the CUDA that torch was built with. Raises OSError where there is none."""
    name = f"libnvrtc.so.{str(torch.version.cuda).partition('.')[0]}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        package = importlib.util.find_spec("nvidia")
        for place in [] if package is None else package.submodule_search_locations or []:
            for file in sorted(Path(place).glob(f"*/lib/{name}")):
                # It looks its own part up by name alone, and finds it when it is already there.
                for part in file.parent.glob("libnvrtc-builtins.so.*"):
                    ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
                return ctypes.CDLL(str(file))
        raise
