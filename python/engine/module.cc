// cadre._engine: the engine's parts as Python objects. Thin on purpose: arguments are checked, the GIL is let
// go, errors become exceptions. Shapes, defaults and numpy live in the package around it (cadre/*.py); this
// module writes into memory that its caller brings.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>

#include "base/log.h"
#include "python/engine/buffers.h"
#include "python/engine/errors.h"
#include "python/engine/exchange.h"
#include "python/engine/llm_module.h"
#include "python/engine/memory_module.h"
#include "sys/cpu.h"
#include "sys/gpus.h"

namespace cadre::python {
namespace py = pybind11;
namespace {

Duration SecondsOf(double seconds) {
  if (!(seconds > 0 && seconds <= 86400 * 365.0))
    throw py::value_error(Format("timeout is {}; it is a number of seconds above 0", seconds));
  return std::chrono::round<Duration>(std::chrono::duration<double>(seconds));
}

// One thread at a time may be inside an object, because the GIL is let go there.
template <typename T>
struct Held {
  std::shared_ptr<T> object;
  std::shared_ptr<std::atomic<bool>> busy = std::make_shared<std::atomic<bool>>(false);
};

template <typename T>
class Turn {
 public:
  explicit Turn(const Held<T>& held) : busy_(*held.busy) {
    if (busy_.exchange(true))
      throw std::runtime_error("another thread is using this object; give each thread its own");
  }
  ~Turn() { busy_ = false; }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  std::atomic<bool>& busy_;
};

// Runs `work`, which returns a Status or Result, without the GIL.
template <typename T, typename Work>
auto Unlocked(const Held<T>& held, Work work) {
  const Turn<T> turn(held);
  const auto result = [&] {
    const py::gil_scoped_release release;
    return work(*held.object);
  }();
  if (!result) Raise(result.error());
  if constexpr (!std::is_same_v<std::remove_cv_t<decltype(result)>, Status>) return *result;
}

using HeldWorld = Held<World>;
using HeldExchange = Held<Exchange>;
using HeldCollective = Held<Collective>;

std::shared_ptr<World> WorldOf(const std::optional<HeldWorld>& world) {
  return world ? world->object : nullptr;
}

HeldWorld JoinWorld(int rank, int size, int local_rank, int local_size, const std::string& address, int port,
                    double timeout) {
  if (port < 1 || port > 65535) throw py::value_error(Format("port is {}; it goes from 1 to 65535", port));
  const WorldOptions options{.rank = rank,
                             .size = size,
                             .local_rank = local_rank,
                             .local_size = local_size,
                             .address = address,
                             .port = static_cast<uint16_t>(port),
                             .timeout = SecondsOf(timeout)};
  auto world = [&] {
    const py::gil_scoped_release release;
    return World::Join(options);
  }();
  return {ValueOrRaise(std::move(world))};
}

void BindWorld(py::module_& m) {
  py::class_<HeldWorld>(m, "World")
      .def(py::init(&JoinWorld), py::kw_only(), py::arg("rank"), py::arg("size"), py::arg("local_rank"),
           py::arg("local_size"), py::arg("address"), py::arg("port"), py::arg("timeout"))
      .def("leave", [](const HeldWorld& w) { Unlocked(w, [](World& world) { return world.Leave(); }); })
      .def(
          "abandon",
          [](const HeldWorld& w, const std::string& reason) {
            const py::gil_scoped_release release;
            w.object->Abandon(reason);
          },
          py::arg("reason"))
      .def("check", [](const HeldWorld& w) { RaiseIf(w.object->Check()); });
}

HeldCollective MakeCollective(const std::optional<HeldWorld>& world, const std::vector<int>& ranks,
                              double timeout) {
  const CollectiveOptions options{.world = WorldOf(world), .ranks = ranks, .timeout = SecondsOf(timeout)};
  auto made = [&] {
    const py::gil_scoped_release release;
    return Collective::Create(options);
  }();
  return {ValueOrRaise(std::move(made))};
}

void AllGather(const HeldCollective& c, const py::object& own, const std::vector<int64_t>& sizes,
               const py::object& out) {
  const Buffer from(own, "own", false), to(out, "out", true);
  int64_t sum = 0;
  for (const int64_t size : sizes) {
    if (size < 0) throw py::value_error("sizes are numbers of bytes, none below 0");
    sum += size;
  }
  if (sum != to.num_bytes())
    throw py::value_error(Format("out has {} bytes, and all ranks together {}", to.num_bytes(), sum));
  Unlocked(c, [&](Collective& collective) { return collective.AllGather(from.bytes(), sizes, to.bytes()); });
}

void BindCollective(py::module_& m) {
  py::class_<HeldCollective>(m, "Collective")
      .def(py::init(&MakeCollective), py::arg("world"), py::arg("ranks"), py::kw_only(), py::arg("timeout"))
      .def("barrier", [](const HeldCollective& c) { Unlocked(c, [](Collective& o) { return o.Barrier(); }); })
      .def(
          "all_reduce",
          [](const HeldCollective& c, const py::object& array) {
            const Floats x(array, "array", {-1}, true);
            Unlocked(c, [&](Collective& o) { return o.AllReduceSum(x.data(), x.dim(0)); });
          },
          py::arg("array"))
      .def("all_gather", &AllGather, py::arg("own"), py::arg("sizes"), py::arg("out"))
      .def(
          "broadcast",
          [](const HeldCollective& c, int root, const py::bytes& data) {
            std::string text = data;
            Unlocked(c, [&](Collective& o) { return o.Broadcast(root, text); });
            return py::bytes(text);
          },
          py::arg("root"), py::arg("data"));
}

void BindCompute(py::module_& m) {
  py::class_<Device, std::shared_ptr<Device>>(m, "Device")
      .def(py::init([](const std::string& isa, int threads) {
             return ValueOrRaise(Device::Create(isa, threads));
           }),
           py::arg("isa") = "auto", py::arg("threads") = 1)
      .def_property_readonly("isa",
                             [](const Device& d) { return std::string(kernels::IsaName(d.get().isa)); })
      .def_property_readonly("threads", &Device::num_threads);
  py::class_<Linear, std::shared_ptr<Linear>>(m, "Linear")
      .def(py::init([](const py::object& weight) {
             const Floats w(weight, "weight", {-1, -1});
             return ValueOrRaise(Linear::Create(w.data(), w.dim(0), w.dim(1)));
           }),
           py::arg("weight"))
      .def(
          "run",
          [](const Linear& linear, const Device& device, const py::object& rows, const py::object& out) {
            const Floats x(rows, "rows", {-1, linear.k()}), y(out, "out", {x.dim(0), linear.n()}, true);
            const py::gil_scoped_release release;
            const auto turn = device.Hold();
            linear.Run(device.get(), x.data(), x.dim(0), y.data());
          },
          py::arg("device"), py::arg("rows"), py::arg("out"));
  using Bank = nn::ExpertBank;
  py::class_<Bank, std::shared_ptr<Bank>>(m, "ExpertBank")
      .def(py::init([](int32_t experts, int64_t hidden, int64_t inter) {
             return std::make_shared<Bank>(ValueOrRaise(Bank::Create(experts, hidden, inter)));
           }),
           py::arg("num_experts"), py::arg("hidden_size"), py::arg("intermediate_size"))
      .def(
          "set",
          [](Bank& bank, int32_t index, const py::object& gate, const py::object& up,
             const py::object& down) {
            if (index < 0 || index >= bank.size())
              throw py::index_error(Format("expert {} of a bank of {}", index, bank.size()));
            const Floats g(gate, "gate", {bank.inter(), bank.hidden()}),
                u(up, "up", {bank.inter(), bank.hidden()}), d(down, "down", {bank.hidden(), bank.inter()});
            const py::gil_scoped_release release;
            bank.Set(index, {g.data(), u.data(), d.data()});
          },
          py::arg("index"), py::arg("gate"), py::arg("up"), py::arg("down"))
      .def(
          "run",
          [](const Bank& bank, const Device& device, const py::object& rows, const py::object& offsets,
             const py::object& weights, const py::object& out) {
            const Floats x(rows, "rows", {-1, bank.hidden()}), w(weights, "weights", {x.dim(0)}),
                y(out, "out", {x.dim(0), bank.hidden()}, true);
            const Ints o(offsets, "offsets", {bank.size() + 1});
            const Status status = [&] {
              const py::gil_scoped_release release;
              const auto turn = device.Hold();
              return RunBank(device.get(), bank, x.data(), x.dim(0), o.data(), w.data(), y.data());
            }();
            RaiseIf(status);
          },
          py::arg("device"), py::arg("rows"), py::arg("offsets"), py::arg("weights"), py::arg("out"))
      .def_property_readonly("num_experts", &Bank::size)
      .def_property_readonly("hidden_size", &Bank::hidden)
      .def_property_readonly("intermediate_size", &Bank::inter)
      .def_property_readonly("nbytes", &Bank::bytes);
  m.def(
      "top_k",
      [](const Device& device, const py::object& logits, const py::object& experts,
         const py::object& weights) {
        const Floats l(logits, "logits", {-1, -1});
        const Ints e(experts, "experts", {l.dim(0), -1}, true);
        const Floats w(weights, "weights", {l.dim(0), e.dim(1)}, true);
        const auto turn = device.Hold();
        RaiseIf(TopK(device.get(), l.data(), l.dim(0), static_cast<int32_t>(l.dim(1)),
                     static_cast<int32_t>(e.dim(1)), e.data(), w.data()));
      },
      py::arg("device"), py::arg("logits"), py::arg("experts"), py::arg("weights"));
}

HeldExchange MakeExchange(const std::optional<HeldWorld>& world, const std::vector<int>& ranks,
                          const std::shared_ptr<Device>& device, const std::string& backend,
                          int32_t num_experts, int32_t top_k, int64_t hidden_size, int64_t max_tokens,
                          const std::string& placement, double timeout) {
  const ExchangeOptions options{.world = WorldOf(world),
                                .ranks = ranks,
                                .backend = backend,
                                .num_experts = num_experts,
                                .top_k = top_k,
                                .hidden = hidden_size,
                                .max_rows = max_tokens,
                                .placement = placement,
                                .timeout = SecondsOf(timeout),
                                .device = device};
  auto made = [&] {
    const py::gil_scoped_release release;
    return Exchange::Create(options);
  }();
  return {ValueOrRaise(std::move(made))};
}

int64_t Dispatch(const HeldExchange& e, const py::object& rows, const py::object& experts,
                 const py::object& weights) {
  const ExchangeOptions& o = e.object->options();
  const Floats x(rows, "rows", {-1, o.hidden}), w(weights, "weights", {x.dim(0), o.top_k});
  const Ints k(experts, "experts", {x.dim(0), o.top_k});
  return Unlocked(
      e, [&](Exchange& exchange) { return exchange.Dispatch(x.data(), x.dim(0), k.data(), w.data()); });
}

void Combine(const HeldExchange& e, const std::optional<py::object>& expert_rows, const py::object& out) {
  const int64_t hidden = e.object->options().hidden;
  const Floats y(out, "out", {e.object->num_rows(), hidden}, true);
  std::optional<Floats> rows;
  if (expert_rows)
    rows.emplace(*expert_rows, "expert_rows", std::vector<int64_t>{e.object->num_received(), hidden});
  Unlocked(e, [&](Exchange& exchange) { return exchange.Combine(rows ? rows->data() : nullptr, y.data()); });
}

py::dict BytesOf(const HeldExchange& e) {
  const a2a::ByteCounts b = e.object->bytes();
  py::dict counts;
  counts["dispatch"] = b.dispatch_physical;
  counts["combine"] = b.combine_physical;
  counts["dispatch_formula"] = b.dispatch_algorithmic;
  counts["combine_formula"] = b.combine_algorithmic;
  return counts;
}

void BindExchange(py::module_& m) {
  py::class_<HeldExchange>(m, "Exchange")
      .def(py::init(&MakeExchange), py::arg("world"), py::arg("ranks"), py::arg("device"), py::kw_only(),
           py::arg("backend"), py::arg("num_experts"), py::arg("top_k"), py::arg("hidden_size"),
           py::arg("max_tokens"), py::arg("placement"), py::arg("timeout"))
      .def("dispatch", &Dispatch, py::arg("rows"), py::arg("experts"), py::arg("weights"))
      .def(
          "received",
          [](const HeldExchange& e, const py::object& rows, const py::object& offsets,
             const py::object& weights) {
            const int64_t n = e.object->num_received();
            const Floats x(rows, "rows", {n, e.object->options().hidden}, true),
                w(weights, "weights", {n}, true);
            const Ints o(offsets, "offsets", {static_cast<int64_t>(e.object->held().size()) + 1}, true);
            Unlocked(e, [&](Exchange& exchange) { return exchange.Received(x.data(), o.data(), w.data()); });
          },
          py::arg("rows"), py::arg("offsets"), py::arg("weights"))
      .def(
          "run",
          [](const HeldExchange& e, const nn::ExpertBank& bank) {
            Unlocked(e, [&](Exchange& exchange) { return exchange.Compute(bank); });
          },
          py::arg("bank"))
      .def("combine", &Combine, py::arg("expert_rows"), py::arg("out"))
      .def_property_readonly("num_received", [](const HeldExchange& e) { return e.object->num_received(); })
      .def_property_readonly("held", [](const HeldExchange& e) { return e.object->held(); })
      .def_property_readonly("homes", [](const HeldExchange& e) { return e.object->homes(); })
      .def_property_readonly("description", [](const HeldExchange& e) { return e.object->Describe(); })
      .def_property_readonly("bytes", &BytesOf);
}

}  // namespace

PYBIND11_MODULE(_engine, m) {
  m.doc() = "The parts of Cadre's engine that the package cadre is made of.";
  ConfigureLog(LogLevel::kWarning, "", true);
  BindWorld(m);
  BindCollective(m);
  BindCompute(m);
  BindExchange(m);
  BindLlm(m);
  BindFlags(m);
  BindMemory(m);
  m.attr("version") = CADRE_VERSION;
  m.def("cpu_name", [] { return sys::CpuModelName(); });
  m.def("usable_cpus", &sys::UsableCpus);
  m.def("find_gpus", [] {
    const sys::GpuFinding found = sys::FindGpus();
    return py::make_tuple(found.count, found.where);
  });
}

}  // namespace cadre::python
