"""Command lines: valid options most of the time, else ones that are nearly so, of another kind, or nonsense."""

from __future__ import annotations

from typing import Any

from fuzz_world import World
from hypothesis import strategies as st

JUNK = [
    "",
    " ",
    "-",
    "--",
    "nan",
    "inf",
    "-1",
    "0",
    "1e9",
    "9" * 30,
    "\N{SNOWMAN}",
    "a b",
    "../..",
    "/",
    ".",
    "~",
    "%s",
    "{0}",
    "p$5",
    "x" * 300,
    "*",
    "[",
    "a\nb",
    "\x1b[31m",
    "--json",
    "-q",
    "--no-such",
    "=",
    "a=",
    "=b",
    "None",
    "true",
    "s3://",
    "file:///nowhere",
    "http://[",
    "memory://x",
    "\udcff",
]
NAMES = [
    "cnvlutin",
    "systolic_32x32",
    "sparten",
    "h100_sxm",
    "eie",
    "scnn",
    "tensordash",
    "dstc",
    "statistical_32x32",
    "sponge",
    "nvidia_2_4",
    "eyeriss_v2_pe",
    "dadiannao",
    "highlight",
]
NEAR_NAMES = ["cnvlutn", "CNVLUTIN", "cnvlutin ", "h100", "systolic", "default_45nm", "lora"]
SETS = [
    "lanes=8",
    "lanes=0",
    "lanes=-3",
    "lanes=1.5",
    "lanes=x",
    "lanes=",
    "lanes",
    "lanes=99999999999",
    "lanes=nan",
    "clock=1 GHz",
    "clock=700",
    "clock=1e9",
    "clock=0 Hz",
    "clock=9**9**9 Hz",
    "rows=16",
    "columns=7",
    "units=32",
    "balancing=gb_s",
    "balancing=on",
    "bias=false",
    "empty_brick_cycles=true",
    "empty_brick_cycles=0",
    "memory.bandwidth=64 KB",
    "memory.bandwidth=1 GB/s",
    "memory.bandwidth=1 B/s",
    "memory.weight_buffer=1 byte",
    "memory.burst=0 byte",
    "bits.weight=4",
    "bits.weight=0",
    "vector_lanes=0",
    "vector_lanes=4",
    "node=7 nm",
    "static_power=-1 W",
    "static_power=1 W",
    "area=1 mm^2",
    "name=x",
    "kernel=eie",
    "params.lanes=3",
    "skips=x",
    "skip_overhead=0.5",
    "skip_overhead=nan",
    "sms=1",
    "tiles=4096",
    "memory.weights=streamed",
    "memory.index_bits=3",
]
OPS = ["first", "second", "down", "up", "Down", "", "first,second", "*"]
WEIGHTS = [
    "recorded",
    "dense",
    "random:0.5",
    "random:1",
    "random:0",
    "random:nan",
    "random:2",
    "random:",
    "magnitude:0.5",
    "2:4",
    "4:2",
    "x",
]
WHOLE = ["1", "4", "16", "0", "-1", "1.5", "x", "", "99999999", "9" * 25]
FIGURES = [
    "speedup",
    "speedup-density",
    "energy",
    "tradeoff",
    "cost",
    "pareto",
    "stalls",
    "utilisation",
    "roofline",
    "density",
    "density-map",
    "union",
    "tiles",
    "coactivation",
    "hot-neurons",
    "zero-runs",
    "overlap",
    "entropy",
    "gap",
    "agreement",
    "error-bands",
    "predicted",
    "speedup-measured",
    "joules-density",
    "gates",
    "speed",
    "",
]


@st.composite
def _one(draw: Any, usual: Any, near: Any = ()) -> str:
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return str(draw(st.sampled_from(JUNK)))
    return str(draw(st.sampled_from(list(near) if near and kind < 5 else list(usual))))


class Lines:
    """Strategies for command lines over a world's inputs."""

    def __init__(self, world: World):
        paths = world.paths()
        self.trace = _one([world.trace, world.trace, world.unweighted], paths)
        self.result = _one([world.result, world.result, world.other], paths)
        self.any = _one(paths)
        self.arch = _one([*NAMES, world.arch], [*NEAR_NAMES, *paths])
        self.spec = _one([world.spec], paths)
        self.search = _one([world.search_spec], paths)
        self.masks = _one([world.masks, str(world.folder / "mask.csv")], paths)
        self.reference = _one([world.measured, str(world.folder / "reference")], paths)
        self.word = _one(["first", "second"], OPS)
        self.set = _one(SETS)
        self.weights = _one(WEIGHTS[:3], WEIGHTS)
        self.whole = _one(WHOLE[:3], WHOLE)
        self.table = _one(["default_45nm", "eie_45nm", "horowitz_45nm", "gpu"], ["default", "cnvlutin", world.arch])

    def out(self, *endings: str) -> Any:
        """Where to write: in the example's own folder, or where nothing can be written."""
        bad = ["no/such/folder/x", "/proc/x/y", "x" * 300, "here.txt", ".", "taken"]
        return _one([f"out{ending}" for ending in endings], [*bad, *(f"{name}{endings[0]}" for name in bad)])

    def command(self) -> Any:
        """One command line."""
        return st.one_of(*(self._line(*form) for form in self.forms()))

    def forms(self) -> list[tuple[list[str], list[Any], dict[str, Any], list[str]]]:
        """Words, positional arguments, options with values, and flags of each command."""
        changes = {"--set": self.set, "--weights": self.weights, "--op": self.word}
        json = ["--json", "-q", "-v"]
        out = {"-o": self.out(".zarr")}
        return [
            (
                ["replay"],
                [self.trace],
                {
                    "-a": self.arch,
                    "--table": self.table,
                    "--batch": self.whole,
                    "--speculative": self.whole,
                    "--threads": self.whole,
                    "-o": self.out(".parquet"),
                    **changes,
                },
                json,
            ),
            (["replay"], [self.trace, self.trace], {"-a": self.arch, "-a ": self.arch, **changes}, json),
            (
                ["sweep"],
                [self.spec],
                {"-o": self.out(""), "--processes": st.just("0"), "--set": self.set},
                ["--dry-run", "--yes", *json],
            ),
            (
                ["search"],
                [self.search],
                {
                    "-o": self.out(""),
                    "--trials": _one(["1", "2"], ["0", "-1", "x"]),
                    "--workers": _one(["1"], ["0", "-1"]),
                },
                json,
            ),
            (
                ["timeline"],
                [self.trace],
                {"-a": self.arch, "-o": self.out(".json"), "--layer": self.whole, "--tokens": self.whole, **changes},
                json[1:],
            ),
            (
                ["show"],
                [
                    _one(["arch", "table", "tuning", "model", "dataset"], ["archs", "figure", "x"]),
                    _one([*NAMES, "lora", "default_45nm", "minilm-l6"], NEAR_NAMES),
                ],
                {},
                json,
            ),
            (["ls"], [_one(["archs", "tables", "figures", "tunings", "models", "datasets"], ["arch", "x"])], {}, json),
            (
                ["plot"],
                [_one(FIGURES), self.any],
                {
                    "-o": self.out(".png", ".pdf", ".svg"),
                    "--style": _one(["ieee", "acm", "slides"], ["x"]),
                    "-a": self.arch,
                    "--op": self.word,
                    "--layer": self.whole,
                    "--x": _one(["cycles", "energy_pj"], ["x"]),
                    "--y": _one(["power_w"], ["y"]),
                },
                ["-q"],
            ),
            (["plot"], [_one(FIGURES[:9]), self.result], {"-o": self.out(".svg"), "--op": self.word}, ["-q"]),
            (["plot"], [_one(FIGURES[9:19]), self.trace], {"-o": self.out(".svg"), "--layer": self.whole}, ["-q"]),
            (
                ["report"],
                [self.result],
                {"-o": self.out(".html"), "--title": _one(["A title", "<b>&"]), "--trace": self.trace},
                ["-q"],
            ),
            (["diff"], [self.result, self.result], {"--op": self.word}, json),
            (
                ["validate"],
                [],
                {
                    "--reference": self.reference,
                    "--bundle": _one(["cpu", "h100_sxm"], ["x"]),
                    "--device": _one(["gpu", "x"]),
                    "-a": self.arch,
                },
                json,
            ),
            (["measure", "import"], [self.reference], {}, json),
            (
                ["measure"],
                [_one(["smok", "import", "x"])],
                {"--device": _one(["x", "h100"]), "--budget": _one(["0", "-1", "nan"]), "--meter": _one(["x"])},
                ["--pending", *json],
            ),
            (
                ["trace", "import"],
                [self.masks],
                {**out, "--n": self.whole, "--site": self.word},
                ["--header", "--no-header", "--index", "--no-index", *json],
            ),
            (["trace", "info"], [self.trace], {}, json),
            (["trace", "verify"], [self.trace], {}, json),
            (["trace", "stats"], [self.trace], {}, json),
            (
                ["trace", "slice"],
                [self.trace],
                {**out, "--sequences": self.whole, "--first": self.whole, "--site": self.word},
                json,
            ),
            (["trace", "merge"], [self.trace, self.trace], out, json),
            (
                ["trace", "export"],
                [self.trace],
                {"-o": self.out("", ".npz"), "--format": _one(["npz", "npy", "csv", "scalesim", "sparseloop"], ["x"])},
                ["--padding"],
            ),
            (
                ["trace", "synthesise"],
                [self.trace],
                {**out, "--density": _one(["0.5", "0.1"], ["0", "1", "2", "-1", "nan"]), "--seed": self.whole},
                json,
            ),
        ]

    def _line(self, words: list[str], given: list[Any], options: dict[str, Any], flags: list[str]) -> Any:
        needed = [name for name in ("-o", "-a") if name in options]

        @st.composite
        def line(draw: Any) -> list[str]:
            made = [*words, *(draw(one) for one in given)]
            if draw(st.integers(0, 14)) == 0:
                made = made[:-1]
            extra = draw(st.lists(st.sampled_from(sorted(options)), max_size=3)) if options else []
            names = [one for one in needed if draw(st.integers(0, 14))] + extra
            for name in names:
                made += [name.strip(), draw(options[name])]
            made += draw(st.lists(st.sampled_from(flags), max_size=2)) if flags else []
            return made

        return line()
