"""EEG and MEG as MNE-Python keeps it: epochs around the onsets of pictures."""

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vislens_interp.brain.readers.trials import (
    Recording,
    Session,
    gather,
    in_parts,
    opening,
    pair_by_name,
    read_frame,
    refuse_without,
)
from vislens_interp.brain.responses import NamedPictures, check_known
from vislens_interp.brain.windows import Window, window_masks
from vislens_interp.images import PathLike

if TYPE_CHECKING:
    import mne

SHOWN_UNITS = {"eeg": "uV", "seeg": "uV", "ecog": "uV", "dbs": "uV", "eog": "uV", "mag": "fT", "grad": "fT/cm"}
"""What MNE is asked to convert to; it stores V, T and T/m."""
STORED = {"uV": "V × 1e6", "fT": "T × 1e15", "fT/cm": "T/m × 1e13"}
AS_SAID = {"uV": "µV"}
UNLIKELY = {"uV": 1e4, "fT": 1e6, "fT/cm": 1e6}
"""No sensor of these gives as much in the middle of its responses: an array was not in what MNE stores."""


def read_epochs(
    epochs: "mne.BaseEpochs | PathLike",
    images: NamedPictures,
    *,
    windows: Window | Sequence[Window],
    image_column: str | None = None,
    picks: str | Sequence[str] = "data",
    units: str | None = None,
    subject: str | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: PathLike | None = None,
) -> Recording:
    """Responses of sensors to pictures: means of epochs over time windows, or single time points.

    Args:
        epochs: ``mne.Epochs``, ``mne.EpochsArray``, or a file ``-epo.fif``, which is read a few epochs at a time.
            Dropped epochs are left out, and so are channels marked bad.
        images: Pictures, found by name: a folder, paths, (N, 3, H, W) with ``names``, or a mapping from what an epoch
            names to files, such as ``{"face/1": "anna.png"}``.
        windows: ``"all"`` (the mean over all time points in any of the paper's six windows), one of
            :data:`~vislens_interp.brain.windows.WINDOWS` by name, ``(0.05, 0.15)`` in seconds with both ends, a list of
            these, which makes a target of each sensor and window, or ``"times"``: of each sensor and time point.
        image_column: The column of ``epochs.metadata`` that names each epoch's picture; None takes event names.
        picks: Which channels, as in MNE: ``"data"``, ``"eeg"``, ``"meg"``, or names.
        units: None converts what MNE stores to µV, fT and fT/cm, and the pairing says so; a text takes values as they
            are stored, and is what they are called (such as ``"SD of noise"`` after whitening).
        subject: None takes the one in ``epochs.info``.
        size, names: Side in pixels of pictures in files; names of pictures in memory.
        cache: A file ``.npy`` that holds the responses on the disk.

    Raises:
        ImportError: MNE is not installed.
        FileNotFoundError, KeyError, TypeError, ValueError: A file, a column, a channel or a picture is missing or
            cannot be read, or a window reaches beyond the epochs.

    >>> import mne, pandas as pd, torch
    >>> from vislens_interp.brain import BrainDataset
    >>> info, table = mne.create_info(["PO7", "PO8"], 100.0, "eeg"), pd.DataFrame({"picture": ["a", "b", "a"]})
    >>> epochs = mne.EpochsArray(np.full((3, 2, 40), 2e-6), info, tmin=-0.1, metadata=table, verbose="error")
    >>> pictures = torch.rand(2, 3, 8, 8)
    >>> data = BrainDataset.from_epochs(epochs, pictures, names=["a", "b"], windows="N170", image_column="picture")
    >>> data.targets, data.units, data.mean_responses()[0].tolist()
    (['PO7', 'PO8'], 'µV', [2.0, 2.0])
    """
    refuse_without("mne", "mne", "from_epochs")
    epochs = _opened(epochs)
    labels, source = _labels(epochs, image_column)
    paired = pair_by_name(labels, images, source=source, size=size, names=names)
    times = np.asarray(epochs.times)
    masks, several = window_masks(windows, times, whole=True)
    channels, kinds = _channels(epochs, picks)
    picked = np.array(channels)
    wanted = {kind: SHOWN_UNITS[kind] for kind in kinds if kind in SHOWN_UNITS} if units is None else {}

    def read(start: int, stop: int) -> np.ndarray:
        data = epochs.get_data(picked, slice(start, stop), wanted or None, copy=False, verbose=False)
        return np.stack([data[..., mask].mean(-1) for mask in masks.values()], -1).reshape(stop - start, -1)

    targets = [f"{name} {label}" if several else name for name in channels for label in masks]
    # Every time point of an epoch is read for a few targets.
    session = Session(len(epochs), in_parts(read, len(channels) * len(times)))
    responses = gather([session], paired, len(targets), cache=cache)
    if len(wanted) == 1 and len(kinds) == 1 and responses[:64].abs().nanmedian() > UNLIKELY[unit := wanted[kinds[0]]]:
        warnings.warn(
            f"epochs: half of the responses are beyond {UNLIKELY[unit]:g} {AS_SAID.get(unit, unit)}, converted from "
            f"{STORED[unit]}: MNE stores V and T. Convert arrays before they become epochs, or pass units= to "
            "leave them.",
            stacklevel=3,
        )
    said = units or ", ".join(
        AS_SAID.get(unit, unit) + (f" ({kind})" if len(kinds) > 1 else "") for kind, unit in wanted.items()
    )
    remark = _what_was_left_out(epochs, channels)
    if wanted:
        remark += f"; converted from {', '.join(STORED[unit] for unit in dict.fromkeys(wanted.values()))}"
    whose = subject or (epochs.info["subject_info"] or {}).get("his_id")
    return paired.recording(responses, targets, whose, said or "as stored", remark)


def _opened(epochs: "mne.BaseEpochs | PathLike") -> "mne.BaseEpochs":
    import mne

    if isinstance(epochs, (str, os.PathLike)):
        with opening(epochs, "epochs", "MNE", "a file ending in -epo.fif that epochs.save wrote"):
            opened = mne.read_epochs(os.fspath(epochs), preload=False, verbose="error")
            with mne.use_log_level("error"):
                opened[-1:].get_data(copy=False)  # a file that was cut short still opens
        epochs = opened
    if not isinstance(epochs, mne.BaseEpochs):
        raise TypeError(
            f"epochs is a {type(epochs).__name__}; expected mne.Epochs, mne.EpochsArray or a file -epo.fif. Raw "
            "recordings are cut by mne.Epochs first, evoked ones are averaged already."
        )
    if not epochs.preload:
        epochs = epochs.copy().drop_bad(verbose=False)
    if len(epochs) == 0:
        raise ValueError("epochs holds no epoch that was not dropped; expected some. Loosen reject=.")
    return epochs


def _labels(epochs: "mne.BaseEpochs", column: str | None) -> tuple[list[object], str]:
    """The name that each epoch gives of its picture, and where it comes from."""
    if column is None:
        by_code = {code: name for name, code in epochs.event_id.items()}
        return [by_code[code] for code in epochs.events[:, 2]], "the epochs' event names"
    if epochs.metadata is None:
        raise ValueError(
            f"image_column={column!r}, but epochs have no metadata; expected a table with that column. Set "
            "epochs.metadata, or pass image_column=None and images as a mapping from event names to files."
        )
    table, called = read_frame(epochs.metadata, column, argument="epochs.metadata", column_argument="image_column")
    return list(table[column]), f"column {column!r} of {called}"


def _channels(epochs: "mne.BaseEpochs", picks: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the channels, and the kinds among them."""
    import mne

    names = epochs.ch_names
    if not isinstance(picks, str):
        wanted = [str(name) for name in picks]
        for name in wanted:
            check_known("picks: channel", name, names, "epochs")
            if name in epochs.info["bads"]:
                raise ValueError(
                    f"picks: channel {name!r} is marked bad in epochs.info['bads']; expected good ones. Leave it out, "
                    "interpolate it (epochs.interpolate_bads), or take the mark away."
                )
        chosen = wanted
    else:
        try:
            with mne.use_log_level("error"):  # one epoch is read, which MNE would say
                chosen = epochs[:1].load_data().pick(picks, exclude="bads").ch_names
        except ValueError as error:
            held = ", ".join(dict.fromkeys(epochs.get_channel_types()))
            raise ValueError(
                f"picks={picks!r} takes no channel of epochs, which hold {held}; expected such a kind, or names."
            ) from error
    kinds = dict(zip(names, epochs.get_channel_types(), strict=True))
    return list(chosen), list(dict.fromkeys(kinds[name] for name in chosen))


def _what_was_left_out(epochs: "mne.BaseEpochs", channels: list[str]) -> str:
    dropped = sum(bool(reasons) and tuple(reasons) != ("IGNORED",) for reasons in epochs.drop_log)
    bads = [name for name in epochs.info["bads"] if name not in channels]
    text = f"; {dropped} epochs were dropped" if dropped else ""
    return text + (f"; bad channels left out: {', '.join(bads)}" if bads else "")
