"""The tasks that a checkpoint folder can be built for, one row each; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What one task loads and gives.

    Attributes:
        name: as the user writes it after ``#``.
        summary: one line for ``strop tasks``.
        auto: transformers' Auto class that loads it; None if it is part of another model.
        mapping: transformers' table of the classes that do it, by which a folder that names its
            own class is recognised.
        outputs: what is kept of what the module returns; all of it where nothing is named.
        labels: whether the classes have names (``id2label``).
        pairs: whether texts come in pairs where the model tells segments apart.
        part: whether it takes a part of a model on purpose, so that other weights may be unused.
    """

    name: str
    summary: str
    auto: str | None = None
    mapping: str | None = None
    outputs: tuple[str, ...] = ()
    labels: bool = False
    pairs: bool = False
    part: bool = False


_ROWS = (
    Task(
        "feature-extraction",
        "hidden states of the body, and its pooled output where trained",
        "AutoModel",
        "MODEL_MAPPING_NAMES",
        part=True,
    ),
    Task(
        "sentence-embedding",
        "one vector for each text, by modules.json: pooling, dense and normalize in the graph",
        "AutoModel",
        "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",
        outputs=("sentence_embedding",),
        part=True,
    ),
    Task(
        "text-classification",
        "scores of classes for a text or a pair of texts",
        "AutoModelForSequenceClassification",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        outputs=("logits",),
        labels=True,
        pairs=True,
    ),
    Task(
        "token-classification",
        "scores of classes for every token",
        "AutoModelForTokenClassification",
        "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
        outputs=("logits",),
        labels=True,
    ),
    Task(
        "question-answering",
        "scores of where an answer starts and ends, for a question and a text",
        "AutoModelForQuestionAnswering",
        "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
        outputs=("start_logits", "end_logits"),
        pairs=True,
    ),
    Task(
        "multiple-choice",
        "a score for each of several endings of a text",
        "AutoModelForMultipleChoice",
        "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
        outputs=("logits",),
        pairs=True,
    ),
    Task(
        "fill-mask",
        "scores of the vocabulary at every position of a masked language model",
        "AutoModelForMaskedLM",
        "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
        outputs=("logits",),
    ),
    Task(
        "text-scoring",
        "scores of the next token at every position of a causal language model, without cache",
        "AutoModelForCausalLM",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        outputs=("logits",),
    ),
    Task(
        "text-generation",
        "a causal language model with caches of keys and values, which writes token by token",
        "AutoModelForCausalLM",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    ),
    Task(
        "text2text-generation",
        "an encoder and a decoder with caches that share weights (T5, BART, Marian)",
        "AutoModelForSeq2SeqLM",
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    ),
    Task(
        "image-classification",
        "scores of classes for an image",
        "AutoModelForImageClassification",
        "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        outputs=("logits",),
        labels=True,
    ),
    Task(
        "object-detection",
        "scores and boxes of objects in an image",
        "AutoModelForObjectDetection",
        "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
        outputs=("logits", "pred_boxes"),
        labels=True,
    ),
    Task(
        "semantic-segmentation",
        "scores of classes for every place of an image",
        "AutoModelForSemanticSegmentation",
        "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
        outputs=("logits",),
        labels=True,
    ),
    Task(
        "image-segmentation",
        "scores and masks of objects in an image (instance, panoptic)",
        "AutoModelForUniversalSegmentation",
        "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
        outputs=(
            "logits",
            "pred_boxes",
            "pred_masks",
            "class_queries_logits",
            "masks_queries_logits",
        ),
        labels=True,
    ),
    Task(
        "depth-estimation",
        "the depth at every place of an image",
        "AutoModelForDepthEstimation",
        "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
        outputs=("predicted_depth",),
    ),
    Task(
        "speech-recognition",
        "scores of characters over time (CTC)",
        "AutoModelForCTC",
        "MODEL_FOR_CTC_MAPPING_NAMES",
        outputs=("logits",),
    ),
    Task(
        "automatic-speech-recognition",
        "an encoder of recordings and a decoder with caches (Whisper); CTC models as above",
        "AutoModelForSpeechSeq2Seq",
        "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    ),
    Task(
        "audio-classification",
        "scores of classes for a recording",
        "AutoModelForAudioClassification",
        "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
        outputs=("logits",),
        labels=True,
    ),
    Task(
        "audio-frame-classification",
        "scores of classes over time (who speaks when)",
        "AutoModelForAudioFrameClassification",
        "MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES",
        outputs=("logits",),
        labels=True,
    ),
    Task(
        "audio-xvector",
        "one vector for each recording (speaker)",
        "AutoModelForAudioXVector",
        "MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES",
        outputs=("logits", "embeddings"),
    ),
    Task(
        "zero-shot-image-classification",
        "how well images and texts match, by CLIP, SigLIP and similar models",
        "AutoModelForZeroShotImageClassification",
        "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        outputs=("logits_per_image", "logits_per_text", "text_embeds", "image_embeds"),
    ),
    Task(
        "text-embedding",
        "one vector for each text, by the text encoder of CLIP, SigLIP and similar models",
        "AutoModelForZeroShotImageClassification",
        outputs=("text_embeds",),
        part=True,
    ),
    Task(
        "image-embedding",
        "one vector for each image, by the image encoder of CLIP, SigLIP and similar models",
        "AutoModelForZeroShotImageClassification",
        outputs=("image_embeds",),
        part=True,
    ),
    Task(
        "encoder",
        "hidden states of the encoder of an encoder-decoder (T5, BART, Whisper)",
        "AutoModel",
        outputs=("last_hidden_state",),
        part=True,
    ),
)
TASKS = {row.name: row for row in _ROWS}
# Tasks of an encoder-decoder that writes its answer token by token.
SEQUENCE_TO_SEQUENCE = ("text2text-generation", "automatic-speech-recognition")
# Names that pipelines of transformers use for the same.
ALIASES = {
    "sentence-similarity": "sentence-embedding",
    "instance-segmentation": "image-segmentation",
    "panoptic-segmentation": "image-segmentation",
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
}
