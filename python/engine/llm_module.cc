// cadre._engine.Llm: arguments are checked, the GIL is let go, errors become exceptions; nothing else.
#include "python/engine/llm_module.h"

#include <pybind11/stl.h>
#include <unistd.h>

#include <future>

#include "python/engine/errors.h"
#include "python/engine/fields.h"
#include "python/engine/llm.h"

namespace cadre::python {
namespace py = pybind11;
namespace {

constexpr auto kSignalPeriod = std::chrono::milliseconds(100);

// A model of this process. A fork has a copy of the object, but none of its threads.
class PyLlm {
 public:
  explicit PyLlm(std::unique_ptr<Llm> llm) : llm_(std::move(llm)) {}
  PyLlm(PyLlm&&) = default;
  ~PyLlm() {
    if (llm_ == nullptr) return;
    if (is_fork()) {
      (void)llm_.release();  // its threads are the parent's, and so are its ranks
      return;
    }
    const py::gil_scoped_release release;
    llm_.reset();
  }

  bool is_fork() const { return getpid() != pid_; }
  Llm& get() const {
    if (is_fork()) {
      Raise({Code::kUnavailable,
             Format(
                 "this LLM belongs to process {}, and this process ({}) is a fork of it, which has no engine "
                 "threads. Make the LLM in the process that uses it, or start processes with "
                 "multiprocessing.get_context('spawn')",
                 pid_, getpid()),
             {}});
    }
    return *llm_;
  }

 private:
  std::unique_ptr<Llm> llm_;
  const pid_t pid_ = getpid();
};

struct PyMailbox {
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
};
using Handle = std::weak_ptr<session::Generation>;
struct PyRequest {
  Handle handle;
};

void LetSignalsThrough() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

PyLlm Open(const std::vector<std::string>& words, const std::string& program,
           const std::string& chat_template) {
  auto opened = [&] {
    const py::gil_scoped_release release;
    return Llm::Open({.words = words, .program = program, .chat_template = chat_template},
                     config::ReadEnvironment());
  }();
  return PyLlm(ValueOrRaise(std::move(opened)));
}

// In short waits, so that Ctrl-C is heard.
void WaitStarted(const PyLlm& llm) {
  Llm& model = llm.get();
  while (true) {
    auto started = [&] {
      const py::gil_scoped_release release;
      return model.WaitStarted(Now() + kSignalPeriod);
    }();
    if (ValueOrRaise(std::move(started))) return;
    LetSignalsThrough();
  }
}

session::SamplingRequest SamplingOf(const Fields& f) {
  session::SamplingRequest s;
  f.Read("temperature", "a number", s.temperature);
  f.Read("top_p", "a number", s.top_p);
  f.Read("min_p", "a number", s.min_p);
  f.Read("repetition_penalty", "a number", s.repetition_penalty);
  f.Read("presence_penalty", "a number", s.presence_penalty);
  f.Read("frequency_penalty", "a number", s.frequency_penalty);
  f.Read("top_k", "an integer", s.top_k);
  f.Read("seed", "an integer of 64 bits", s.seed);
  f.Read("max_tokens", "an integer", s.max_tokens);
  f.Read("min_tokens", "an integer", s.min_tokens);
  f.Read("n", "an integer", s.n);
  f.Read("stop", "a string or a list of strings", s.stop);
  f.Read("stop_token_ids", "a list of integers", s.stop_token_ids);
  f.Read("include_stop_str_in_output", "a boolean", s.include_stop_str_in_output);
  f.Read("ignore_eos", "a boolean", s.ignore_eos);
  f.Read("skip_special_tokens", "a boolean", s.skip_special_tokens);
  f.Read("logit_bias", "a dict of token ids and numbers", s.logit_bias);
  f.Read("allowed_token_ids", "a list of integers", s.allowed_token_ids);
  f.Read("bad_words", "a list of strings", s.bad_words);
  f.Read("logprobs", "an integer", s.logprobs);
  f.Read("prompt_logprobs", "an integer", s.prompt_logprobs);
  return s;
}

// A JSON object with the members of ChatPrompt.
session::ChatPrompt ChatOf(const std::string& text) {
  const Json json = ValueOrRaise(Json::Parse(text));
  const auto member = [&](const char* name) {
    const Json* value = json.Find(name);
    return value == nullptr ? Json() : *value;
  };
  session::ChatPrompt chat{.messages = member("messages"),
                           .tools = member("tools"),
                           .documents = member("documents"),
                           .kwargs = member("chat_template_kwargs")};
  if (const Json own = member("chat_template"); own.is_string()) chat.chat_template = own.AsString();
  if (const Json add = member("add_generation_prompt"); add.is_bool())
    chat.add_generation_prompt = add.AsBool();
  if (const Json go_on = member("continue_final_message"); go_on.is_bool())
    chat.continue_final_message = go_on.AsBool();
  return chat;
}

session::PromptInput PromptOf(const py::object& prompt, bool is_chat) {
  if (is_chat) return ChatOf(prompt.cast<std::string>());
  if (py::isinstance<py::str>(prompt)) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(prompt.ptr(), &size);
    if (text == nullptr) throw py::error_already_set();  // half of a surrogate pair
    return session::TextPrompt{std::string(text, static_cast<size_t>(size))};
  }
  try {
    return session::TokenPrompt{prompt.cast<std::vector<int64_t>>()};
  } catch (const py::cast_error&) {
    throw py::type_error("a prompt is a string or a list of token ids");
  }
}

PyRequest Submit(const PyLlm& llm, const PyMailbox& mailbox, int64_t number, const py::object& prompt,
                 const py::dict& sampling, const py::dict& options) {
  Llm& model = llm.get();
  session::GenerateRequest request;
  const Fields given(options);
  bool is_chat = false;
  given.Read("is_chat", "a boolean", is_chat);
  given.Read("id", "a string", request.id);
  given.Read("add_special_tokens", "a boolean", request.add_special_tokens);
  given.Read("truncate_prompt_tokens", "an integer", request.truncate_prompt_tokens);
  given.Read("truncate_left", "a boolean", request.truncate_left);
  given.Read("stream", "a boolean", request.stream);
  given.Read("stream_interval", "an integer", request.stream_interval);
  given.Read("cache_salt", "a string", request.cache_salt);
  given.Read("adapter", "a string", request.adapter);
  given.Read("priority", "an integer", request.priority);
  given.Read("data_parallel_rank", "an integer", request.data_parallel_rank);
  request.prompt_field = is_chat ? "messages" : "prompt";
  request.sampling = SamplingOf(Fields(sampling));
  request.fill_context = !request.sampling.max_tokens.has_value();
  request.prompts.push_back(PromptOf(prompt, is_chat));
  auto handle = [&] {
    const py::gil_scoped_release release;
    auto submitted = model.Submit(std::move(request), number, mailbox.mailbox);
    if (!submitted && submitted.error().code == Code::kUnavailable)
      submitted.error() = model.Explain(std::move(submitted.error()));
    return submitted;
  }();
  return {ValueOrRaise(std::move(handle))};
}

py::list LogprobsOf(const engine::Logprobs& logprobs) {
  py::list out;
  for (const engine::TokenLogprob& one : logprobs)
    out.append(py::make_tuple(one.token, one.logprob, one.rank));
  return out;
}

double SecondsOf(TimePoint time) {
  return Seconds(time.time_since_epoch());
}

// Bytes that are no UTF-8 (there should be none) must not end a batch.
py::str Utf8(const std::string& text) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

py::object EndOf(const session::SequenceEnd& end) {
  py::dict out;
  const char* names[] = {"stop", "length", "abort", "error"};
  out["reason"] = names[static_cast<int>(end.reason)];
  out["stop_reason"] = std::visit(
      [](const auto& reason) -> py::object {
        if constexpr (std::is_same_v<std::decay_t<decltype(reason)>, std::monostate>) {
          return py::none();
        } else {
          return py::cast(reason);
        }
      },
      end.stop_reason);
  out["times"] = py::make_tuple(SecondsOf(end.times.queued), SecondsOf(end.times.scheduled),
                                SecondsOf(end.times.first_token), SecondsOf(end.times.last_token));
  out["num_preemptions"] = end.num_preemptions;
  out["error"] = end.reason == engine::FinishReason::kError ? ExceptionOf(end.error) : py::none();
  return out;
}

py::object PartOf(const SequencePart& part) {
  py::dict out;
  out["sequence"] = part.sequence;
  out["text"] = Utf8(part.text);
  py::list tokens, logprobs;
  bool has_logprobs = false;
  for (const engine::GeneratedToken& token : part.tokens) {
    tokens.append(token.token);
    has_logprobs = has_logprobs || !token.logprobs.empty();
  }
  if (has_logprobs) {
    for (const engine::GeneratedToken& token : part.tokens) logprobs.append(LogprobsOf(token.logprobs));
  }
  out["token_ids"] = tokens;
  out["logprobs"] = has_logprobs ? py::object(logprobs) : py::none();
  if (part.prompt) {
    py::list prompt;
    for (const engine::Logprobs& one : part.prompt->logprobs) prompt.append(LogprobsOf(one));
    out["num_cached_tokens"] = part.prompt->num_cached_tokens;
    out["prompt_logprobs"] = part.prompt->logprobs.empty() ? py::none() : py::object(prompt);
  }
  if (part.end) out["end"] = EndOf(*part.end);
  return out;
}

py::object UpdateOf(const Update& update) {
  py::dict out;
  out["request"] = update.request;
  if (update.accepted) {
    out["prompt_token_ids"] = update.accepted->prompts.at(0);
    const std::string& text = update.accepted->texts.at(0);
    out["prompt"] = text.empty() ? py::none() : py::object(Utf8(text));
  }
  py::list parts;
  for (const SequencePart& part : update.parts) parts.append(PartOf(part));
  out["parts"] = parts;
  out["ended"] = update.ended;
  out["error"] = update.failure ? ExceptionOf(*update.failure) : py::none();
  return out;
}

// Returns as soon as there is something; after `seconds` at the latest, with an empty list.
py::list Take(const PyMailbox& box, double seconds) {
  if (!(seconds >= 0 && seconds <= 1e9)) throw py::value_error("seconds is a number from 0 to 1e9");
  const TimePoint deadline = Now() + std::chrono::round<Duration>(std::chrono::duration<double>(seconds));
  while (true) {
    const std::vector<Update> updates = [&] {
      const py::gil_scoped_release release;
      return box.mailbox->Take(std::min(deadline, Now() + kSignalPeriod));
    }();
    py::list out;
    for (const Update& update : updates) out.append(UpdateOf(update));
    if (!updates.empty()) return out;
    LetSignalsThrough();
    if (Now() >= deadline) return out;
  }
}

// What `work(session, deployment)` finds, without the GIL meanwhile.
template <typename Work>
auto Ask(const PyLlm& llm, Work work) {
  Llm& model = llm.get();
  auto found = [&] {
    const py::gil_scoped_release release;
    return model.With(work);
  }();
  if (!found) Raise(found.error());
  if constexpr (!std::is_same_v<decltype(found), Status>) return std::move(*found);
}

Result<const session::TextModel*> TextOf(const session::Session& session) {
  if (session.text() != nullptr) return session.text();
  return FailParam(Code::kInvalidArgument, "skip_tokenizer_init",
                   "this LLM runs without a tokenizer (skip_tokenizer_init)");
}

// Gives an order about an adapter and waits until all ranks have carried it out.
void ChangeAdapter(const PyLlm& llm, const engine::WeightOrder& order) {
  Ask(llm, [&](const session::Session& session, deploy::Deployment&) -> Status {
    const auto answer = std::make_shared<std::promise<Result<engine::ControlState>>>();
    session.engine().Control(
        {.kind = engine::ControlKind::kWeights, .weights = order},
        [answer](Result<engine::ControlState> state) { answer->set_value(std::move(state)); });
    CADRE_TRY(answer->get_future().get());
    return {};
  });
}

void BindText(py::class_<PyLlm>& c) {
  c.def(
      "encode",
      [](const PyLlm& llm, const std::string& text, bool add_special_tokens) {
        return Ask(llm, [&](const session::Session& s, deploy::Deployment&) -> Result<std::vector<int32_t>> {
          CADRE_ASSIGN(const auto model, TextOf(s));
          return model->Encode(text, add_special_tokens);
        });
      },
      py::arg("text"), py::arg("add_special_tokens"));
  c.def(
      "decode",
      [](const PyLlm& llm, const std::vector<int64_t>& ids, bool skip_special_tokens) {
        return Utf8(Ask(llm, [&](const session::Session& s, deploy::Deployment&) -> Result<std::string> {
          CADRE_ASSIGN(const auto model, TextOf(s));
          CADRE_ASSIGN(const auto checked, s.CheckIds(ids, "token_ids"));
          return model->Decode(checked, skip_special_tokens);
        }));
      },
      py::arg("token_ids"), py::arg("skip_special_tokens"));
  c.def(
      "token",
      [](const PyLlm& llm, int64_t id) {
        return Utf8(Ask(llm, [&](const session::Session& s, deploy::Deployment&) -> Result<std::string> {
          CADRE_ASSIGN(const auto model, TextOf(s));
          CADRE_ASSIGN(const auto checked, s.CheckIds({id}, "token_ids"));
          return model->TokenString(checked.front());
        }));
      },
      py::arg("token_id"));
  c.def(
      "render_chat",
      [](const PyLlm& llm, const std::string& chat) {
        const session::ChatPrompt prompt = ChatOf(chat);
        return Utf8(Ask(llm, [&](const session::Session& s, deploy::Deployment&) -> Result<std::string> {
          CADRE_ASSIGN(const auto model, TextOf(s));
          return session::RenderPrompt(prompt, *model, s.options().content_format);
        }));
      },
      py::arg("chat"));
  c.def_property_readonly("tokenizer_info", [](const PyLlm& llm) {
    py::dict out;
    std::optional<int32_t> eos;
    std::string chat_template;
    const int64_t size = Ask(llm, [&](const session::Session& s, deploy::Deployment&) -> Result<int64_t> {
      CADRE_ASSIGN(const auto model, TextOf(s));
      eos = model->eos();
      chat_template = model->ChatTemplateSource(false);
      return model->vocab_size();
    });
    out["vocab_size"] = size;
    out["eos_token_id"] = eos;
    out["chat_template"] = chat_template.empty() ? py::none() : py::object(Utf8(chat_template));
    return out;
  });
}

py::dict InfoOf(const PyLlm& llm) {
  const config::EngineOptions& o = llm.get().options();
  py::dict out;
  Ask(llm, [&](const session::Session& s, deploy::Deployment& d) -> Status {
    const py::gil_scoped_acquire acquire;
    const engine::ModelInfo& model = s.model();
    out["vocab_size"] = model.vocab_size;
    out["max_model_len"] = model.max_model_len;
    out["num_kv_blocks"] = model.num_kv_blocks;
    out["block_size"] = model.block_size;
    out["folder"] = d.setup().location.folder;
    out["architecture"] = d.setup().spec.architecture;
    out["dtype"] = d.setup().type == DType::kF32 ? "float32" : "bfloat16";
    return {};
  });
  out["model"] = o.model.model;
  out["seed"] = o.model.seed;
  out["tensor_parallel_size"] = o.parallel.tensor_parallel_size;
  out["data_parallel_size"] = o.parallel.data_parallel_size;
  out["enable_expert_parallel"] = o.parallel.enable_expert_parallel;
  const session::SamplingDefaults& d = llm.get().defaults();
  out["sampling_defaults"] =
      py::dict(py::arg("temperature") = d.temperature, py::arg("top_p") = d.top_p, py::arg("min_p") = d.min_p,
               py::arg("repetition_penalty") = d.repetition_penalty, py::arg("top_k") = d.top_k,
               py::arg("max_tokens") = d.max_new_tokens);
  return out;
}

py::list StatsOf(const PyLlm& llm) {
  const auto ranks =
      Ask(llm, [](const session::Session& s, deploy::Deployment&) -> Result<std::vector<engine::RankStats>> {
        return s.engine().Stats();
      });
  py::list out;
  for (const engine::RankStats& r : ranks) {
    out.append(py::dict(py::arg("rank") = r.rank, py::arg("num_running") = r.num_running,
                        py::arg("num_waiting") = r.num_waiting, py::arg("kv_cache_usage") = r.kv_cache_usage,
                        py::arg("num_preemptions") = r.num_preemptions,
                        py::arg("prefix_cache_queries") = r.prefix_cache_queries,
                        py::arg("prefix_cache_hits") = r.prefix_cache_hits,
                        py::arg("prompt_tokens") = r.prompt_tokens,
                        py::arg("generation_tokens") = r.generation_tokens));
  }
  return out;
}

}  // namespace

void BindLlm(py::module_& m) {
  py::class_<PyMailbox>(m, "Mailbox")
      .def(py::init<>())
      .def("fileno", [](const PyMailbox& box) { return box.mailbox->fd(); })
      .def("take", &Take, py::arg("seconds"));
  py::class_<PyRequest>(m, "Request");
  py::class_<PyLlm> c(m, "Llm");
  c.def(py::init(&Open), py::arg("words"), py::kw_only(), py::arg("program"), py::arg("chat_template"))
      .def("wait_started", &WaitStarted)
      .def_property_readonly("busy", [](const PyLlm& llm) { return !llm.is_fork() && llm.get().busy(); })
      .def_property_readonly("is_fork", &PyLlm::is_fork)
      .def("close",
           [](const PyLlm& llm) {
             if (llm.is_fork()) return;
             const py::gil_scoped_release release;
             llm.get().Close();
           })
      .def("submit", &Submit, py::arg("mailbox"), py::arg("number"), py::arg("prompt"), py::arg("sampling"),
           py::arg("options"))
      .def(
          "cancel",
          [](const PyLlm& llm, const PyRequest& request) {
            Llm& model = llm.get();
            const py::gil_scoped_release release;
            model.Cancel(request.handle);
          },
          py::arg("request"))
      .def(
          "explain",
          [](const PyLlm& llm, const std::string& message) {
            Llm& model = llm.get();
            const py::gil_scoped_release release;
            return model.Explain({Code::kUnavailable, message, {}}).message;
          },
          py::arg("message"))
      .def("check_health",
           [](const PyLlm& llm) {
             Ask(llm, [](const session::Session& s, deploy::Deployment&) { return s.engine().Health(); });
           })
      .def("reset_prefix_cache",
           [](const PyLlm& llm) {
             Ask(llm, [](const session::Session& s, deploy::Deployment&) {
               return s.engine().ResetPrefixCache();
             });
           })
      .def(
          "load_adapter",
          [](const PyLlm& llm, const std::string& name, const std::string& path, bool in_place) {
            ChangeAdapter(llm, {.kind = engine::WeightOrder::Kind::kLoadAdapter,
                                .folder = path,
                                .name = name,
                                .in_place = in_place});
          },
          py::arg("name"), py::arg("path"), py::arg("in_place"))
      .def(
          "unload_adapter",
          [](const PyLlm& llm, const std::string& name) {
            ChangeAdapter(llm, {.kind = engine::WeightOrder::Kind::kUnloadAdapter, .name = name});
          },
          py::arg("name"))
      .def("stats", &StatsOf)
      .def_property_readonly("info", &InfoOf);
  BindText(c);
  m.def(
      "check_sampling",
      [](const py::dict& sampling) { RaiseIf(session::CheckSampling(SamplingOf(Fields(sampling)))); },
      py::arg("sampling"));
}

}  // namespace cadre::python
