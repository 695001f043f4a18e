"""Bit-sliced gate simulation: 64 independent traces in one word, a cycle of all in one pass over the netlist."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwmodels.counting.jit import jit, popcount64

from .netlist import ONE, Index, Netlist

Words = NDArray[np.uint64]
LANES = 64


class Activity(NamedTuple):
    """What a run of the netlist showed.

    Parameters
    ----------
    outputs : uint64[cycles, bits]
        Watched nets in every cycle, a trace in each bit of a word.
    toggles : int64[nets]
        Transitions of each net over all traces.
    lane_cycles : int
        Cycles times traces over which toggles were counted.
    """

    outputs: Words
    toggles: NDArray[np.int64]
    lane_cycles: int


@jit(inline=True)
def _drive(net, value, nets, toggles):  # type: ignore[no-untyped-def]
    toggles[net] += popcount64(value ^ nets[net])
    nets[net] = value


@jit
def _evaluate(runs, pins, first_gate, nets, toggles):  # type: ignore[no-untyped-def]
    a, b, c, d = pins[0], pins[1], pins[2], pins[3]
    for run in range(runs.shape[0]):
        # one tight loop a kind of gate: a choice inside the loop would cost more than the gate
        operation, first, last = runs[run, 0], runs[run, 1], runs[run, 2]
        if operation == 0:
            for g in range(first, last):
                _drive(first_gate + g, ~nets[a[g]], nets, toggles)
        elif operation == 1:
            for g in range(first, last):
                _drive(first_gate + g, nets[a[g]], nets, toggles)
        elif operation == 2:
            for g in range(first, last):
                _drive(first_gate + g, nets[a[g]] & nets[b[g]], nets, toggles)
        elif operation == 3:
            for g in range(first, last):
                _drive(first_gate + g, nets[a[g]] | nets[b[g]], nets, toggles)
        elif operation == 4:
            for g in range(first, last):
                _drive(first_gate + g, ~(nets[a[g]] & nets[b[g]]), nets, toggles)
        elif operation == 5:
            for g in range(first, last):
                _drive(first_gate + g, ~(nets[a[g]] | nets[b[g]]), nets, toggles)
        elif operation == 6:
            for g in range(first, last):
                _drive(first_gate + g, nets[a[g]] ^ nets[b[g]], nets, toggles)
        elif operation == 7:
            for g in range(first, last):
                _drive(first_gate + g, ~(nets[a[g]] ^ nets[b[g]]), nets, toggles)
        elif operation == 8:
            for g in range(first, last):
                _drive(first_gate + g, ~(nets[a[g]] & nets[b[g]] & nets[c[g]]), nets, toggles)
        elif operation == 9:
            for g in range(first, last):
                _drive(first_gate + g, ~(nets[a[g]] | nets[b[g]] | nets[c[g]]), nets, toggles)
        elif operation == 10:
            for g in range(first, last):
                _drive(first_gate + g, ~((nets[a[g]] & nets[b[g]]) | nets[c[g]]), nets, toggles)
        elif operation == 11:
            for g in range(first, last):
                _drive(first_gate + g, ~((nets[a[g]] | nets[b[g]]) & nets[c[g]]), nets, toggles)
        elif operation == 12:
            for g in range(first, last):
                _drive(first_gate + g, ~((nets[a[g]] & nets[c[g]]) | (nets[b[g]] & ~nets[c[g]])), nets, toggles)
        elif operation == 13:
            for g in range(first, last):
                _drive(first_gate + g, ~((nets[a[g]] & nets[b[g]]) | (nets[c[g]] & nets[d[g]])), nets, toggles)
        else:
            for g in range(first, last):
                _drive(first_gate + g, ~((nets[a[g]] | nets[b[g]]) & (nets[c[g]] | nets[d[g]])), nets, toggles)


@jit
def _simulate(runs, gate_pins, first_gate, flop_data, first_flop, inputs, stimulus, watched, nets, toggles, outputs):  # type: ignore[no-untyped-def]
    flops = flop_data.shape[0]
    held = np.empty(flops, dtype=np.uint64)
    for cycle in range(stimulus.shape[0]):
        for index in range(inputs.shape[0]):
            net = inputs[index]
            toggles[net] += popcount64(nets[net] ^ stimulus[cycle, index])
            nets[net] = stimulus[cycle, index]
        _evaluate(runs, gate_pins, first_gate, nets, toggles)
        for index in range(watched.shape[0]):
            outputs[cycle, index] = nets[watched[index]]
        for flop in range(flops):
            held[flop] = nets[flop_data[flop]]
        for flop in range(flops):
            net = first_flop + flop
            toggles[net] += popcount64(nets[net] ^ held[flop])
            nets[net] = held[flop]


def simulate(netlist: Netlist, stimulus: Words, watched: Index, *, settle: int = 0) -> Activity:
    """Run a netlist from an all-zero state.

    Parameters
    ----------
    netlist : Netlist
        Gates and rising-edge flops.
    stimulus : uint64[cycles, inputs]
        Values at ``netlist.inputs`` in every cycle; bit t of a word is trace t.
    watched : int32[bits]
        Nets that are returned for every cycle, after the gates have settled, before the clock edge.
    settle : int
        First cycles (reset, filling) that do not count for toggles.

    Returns
    -------
    Activity
        Zero-delay transitions: glitches within a cycle are not seen.
    """
    nets = np.zeros(netlist.nets, dtype=np.uint64)
    nets[ONE] = ~np.uint64(0)
    toggles = np.zeros(netlist.nets, dtype=np.int64)
    outputs = np.empty((len(stimulus), len(watched)), dtype=np.uint64)
    # unsigned: numba checks a signed index for wrapping around; one row a pin, so that a loop reads straight on
    pins = np.ascontiguousarray(np.maximum(netlist.gate_pins, 0).T.astype(np.uint32))
    fixed = (netlist.runs, pins, netlist.first_gate, netlist.flop_pins[:, 0].copy(), netlist.first_flop)
    for part in (slice(0, settle), slice(settle, len(stimulus))):
        toggles[:] = 0
        block = np.ascontiguousarray(stimulus[part])
        _simulate(*fixed, netlist.inputs, block, watched, nets, toggles, outputs[part])
    return Activity(outputs, toggles, (len(stimulus) - settle) * LANES)


def pack_traces(bits: NDArray[np.bool_]) -> Words:
    """Turn ``bool[64, cycles, bits]`` into ``uint64[cycles, bits]``, trace t in bit t."""
    traces, cycles, width = bits.shape
    by_trace = np.ascontiguousarray(np.moveaxis(bits, 0, -1))
    padded = np.zeros((cycles, width, LANES), dtype=np.bool_)
    padded[..., :traces] = by_trace
    return np.packbits(padded, axis=-1, bitorder="little").view(np.uint64)[..., 0]


def unpack_traces(words: Words) -> NDArray[np.bool_]:
    """Turn ``uint64[cycles, bits]`` into ``bool[64, cycles, bits]``."""
    octets = np.ascontiguousarray(words)[..., None].view(np.uint8)
    return np.moveaxis(np.unpackbits(octets, axis=-1, bitorder="little").astype(np.bool_), -1, 0)
