"""The embedded model as one with a chat template, and a tokenizer.json."""

import pathlib
import shutil

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from small_run import BASE

# What a text prompt is, as a chat: a begin token, a question, a new line.
PLAIN = (
  '{{ bos_token }}{% for m in messages %}{{ m.content }}'
  "{{ '\n' if m.role == 'user' else eos_token }}{% endfor %}"
)


def write(path: pathlib.Path, template: str = PLAIN) -> str:
  """Writes the model and returns its directory."""
  shutil.copytree(BASE, path)
  (path / 'chat_template.jinja').write_text(template)
  proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
  proto.ParseFromString((path / 'tokenizer.model').read_bytes())
  (path / 'tokenizer.model').unlink()
  vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
  merges = [
    (text[:cut], text[cut:])
    for text in vocab  # In the order in which they were merged.
    for cut in range(1, len(text))
    if text[:cut] in vocab and text[cut:] in vocab
  ]
  model = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab, merges, unk_token='<unk>', byte_fallback=True, fuse_unk=True
    )
  )
  d = tokenizers.decoders
  model.normalizer = tokenizers.normalizers.Replace(' ', '▁')
  model.decoder = d.Sequence([d.Replace('▁', ' '), d.ByteFallback(), d.Fuse()])
  model.add_special_tokens(['<pad>', '<s>', '</s>', '<unk>'])
  model.add_tokens([tokenizers.AddedToken('\n', normalized=False)])
  model.post_processor = tokenizers.processors.TemplateProcessing(
    single='<s> $A', special_tokens=[('<s>', 1)]
  )
  model.save(str(path / 'tokenizer.json'))
  return str(path)
