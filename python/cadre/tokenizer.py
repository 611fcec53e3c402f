"""The model's tokenizer, with the calls of transformers' that scripts use."""

import json

from .errors import UnsupportedError


class Tokenizer:
    """What LLM.get_tokenizer() gives: it works while the LLM is open."""

    is_fast = True

    def __init__(self, model):
        self._model = model
        info = model.handle.tokenizer_info
        self.vocab_size = info["vocab_size"]
        self.eos_token_id = info["eos_token_id"]
        self.chat_template = info["chat_template"]
        self.name_or_path = model.info["folder"]

    @property
    def eos_token(self):
        return None if self.eos_token_id is None else self.convert_ids_to_tokens(self.eos_token_id)

    def __len__(self):
        return self.vocab_size

    def encode(self, text, add_special_tokens=True):
        """The token ids of a text."""
        return self._model.handle.encode(text, add_special_tokens)

    def decode(self, token_ids, skip_special_tokens=False):
        """The text of token ids (or of one)."""
        if hasattr(token_ids, "tolist"):
            token_ids = token_ids.tolist()
        ids = [token_ids] if hasattr(token_ids, "__index__") else list(token_ids)
        return self._model.handle.decode(ids, skip_special_tokens)

    def batch_decode(self, sequences, skip_special_tokens=False):
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def tokenize(self, text):
        return self.convert_ids_to_tokens(self.encode(text, add_special_tokens=False))

    def convert_ids_to_tokens(self, ids):
        """Names in the vocabulary, as tokenizers print them."""
        if hasattr(ids, "__index__"):
            return self._model.handle.token(int(ids))
        return [self._model.handle.token(int(token)) for token in ids]

    def __call__(self, text, add_special_tokens=True, **more):
        if set(more) - {"return_attention_mask"}:
            raise UnsupportedError(f"the tokenizer's call knows text and add_special_tokens, not {sorted(more)}")
        if isinstance(text, str):
            ids = self.encode(text, add_special_tokens)
            return {"input_ids": ids, "attention_mask": [1] * len(ids)}
        many = [self.encode(each, add_special_tokens) for each in text]
        return {"input_ids": many, "attention_mask": [[1] * len(ids) for ids in many]}

    def apply_chat_template(
        self,
        conversation,
        tools=None,
        documents=None,
        chat_template=None,
        add_generation_prompt=False,
        continue_final_message=False,
        tokenize=True,
        **kwargs,
    ):
        """The prompt of a chat: its token ids, or its text with tokenize=False."""
        chat = json.dumps(
            {
                "messages": conversation,
                "tools": tools,
                "documents": documents,
                "chat_template": chat_template,
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": continue_final_message,
                "chat_template_kwargs": kwargs or None,
            }
        )
        text = self._model.handle.render_chat(chat)
        return self.encode(text, add_special_tokens=False) if tokenize else text
