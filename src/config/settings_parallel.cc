// Flags of vLLM's ParallelConfig, and the members of --eplb-config.
#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr double kMaxRanks = 65536;
constexpr double kMaxPort = 65535;

constexpr std::string_view kNoBatchHalves = "A step is not split into two half batches here.";
constexpr std::string_view kNoContextParallel = "Context parallelism is not built; leave the flag out.";
constexpr std::string_view kNoRay =
    "Ray is not used: ranks are processes that cadre serve starts and watches.";
constexpr std::string_view kLaterNuma =
    "Binding by NUMA node comes later; bind CPUs with VLLM_CPU_OMP_THREADS_BIND.";
constexpr std::string_view kLaterFaults =
    "Surviving a lost rank comes later; a rank that dies ends the deployment and is named.";

constexpr std::string_view kAll2AllNames =
    "allgather_reducescatter,deepep_high_throughput,deepep_low_latency,deepep_v2,flashinfer_all2allv,"
    "flashinfer_nvlink_one_sided,flashinfer_nvlink_two_sided,moonep,mori,mori_high_throughput,"
    "mori_low_latency,naive,nixl_ep,pplx";
constexpr std::string_view kNoMoonEp =
    "It fetches weights of busy experts within a step, which is not built; use deepep_high_throughput.";

constexpr Setting kParallel[] = {
    Works("tensor-parallel-size", Type::kInt, "1", Into<&ParallelOptions::tensor_parallel_size>,
          "Ranks that split each layer between them.")
        .Short("tp")
        .Range(1, kMaxRanks),
    Works("data-parallel-size", Type::kInt, "1", Into<&ParallelOptions::data_parallel_size>,
          "Replicas of the attention layers; requests are spread over them. With a mixture of experts they "
          "run in "
          "lockstep and share the experts.")
        .Short("dp")
        .Range(1, kMaxRanks),
    Works("enable-expert-parallel", Type::kBool, "false", Into<&ParallelOptions::enable_expert_parallel>,
          "Each rank holds whole experts (EP size = TP x DP) instead of a slice of every expert.")
        .Short("ep"),
    Works("all2all-backend", Type::kString, "allgather_reducescatter",
          Into<&ParallelOptions::all2all_backend>, "How tokens travel to their experts and back.")
        .Choices(kAll2AllNames)
        .Only(kAll2AllBuilt, kNoMoonEp),
    Works("expert-placement-strategy", Type::kString, "linear",
          Into<&ParallelOptions::expert_placement_strategy>,
          "Which experts a rank holds: linear (a run of neighbours) or round_robin (every EP-size-th one).")
        .Choices("linear,round_robin"),
    Works("distributed-timeout-seconds", Type::kInt, "", Into<&ParallelOptions::distributed_timeout_s>,
          "Longest wait for another rank within a step before the wait fails and names who is missing.")
        .Alias("cpu-distributed-timeout-seconds")
        .Range(1),
    Works("distributed-executor-backend", Type::kString, "", nullptr,
          "How ranks are run: as processes of this host.")
        .Only("mp,uni", kNoRay),
    Works("data-parallel-backend", Type::kString, "mp", nullptr,
          "How DP ranks are run: as processes of this host.")
        .Short("dpb")
        .Choices("mp,ray")
        .Only("mp", kNoRay),
    NotBuilt("pipeline-parallel-size", Type::kInt, "1",
             "Pipeline parallelism is not built; use --tensor-parallel-size, --data-parallel-size and "
             "--enable-expert-parallel.")
        .Short("pp")
        .Range(1)
        .To(Into<&ParallelOptions::pipeline_parallel_size>),
    NotBuilt("prefill-context-parallel-size", Type::kInt, "1", kNoContextParallel)
        .Short("pcp")
        .Range(1)
        .To(Into<&ParallelOptions::prefill_context_parallel_size>),
    NotBuilt("decode-context-parallel-size", Type::kInt, "1", kNoContextParallel)
        .Short("dcp")
        .Range(1)
        .To(Into<&ParallelOptions::decode_context_parallel_size>),
    NoEffect("dcp-comm-backend", Type::kString, "", kNoContextParallel).Choices("a2a,ag_rs,None"),
    NoEffect("dcp-q-replicate", Type::kBool, "", kNoContextParallel),
    NoEffect("dcp-kv-cache-interleave-size", Type::kInt, "1", kNoContextParallel),
    NoEffect("cp-kv-cache-interleave-size", Type::kInt, "", kNoContextParallel),
    Works("headless", Type::kTrue, "false", Into<&ParallelOptions::headless>,
          "This node only computes: the first node answers all requests."),
    Works("data-parallel-size-local", Type::kInt, "", Into<&ParallelOptions::data_parallel_size_local>,
          "DP ranks of this node; all that are left if unset.")
        .Short("dpl")
        .Range(0, kMaxRanks),
    Works("data-parallel-rank", Type::kInt, "", Into<&ParallelOptions::data_parallel_rank>,
          "The one DP rank of this node, which answers its own requests (external load balancing).")
        .Short("dpn")
        .Range(0, kMaxRanks),
    Works(
        "data-parallel-start-rank", Type::kInt, "", Into<&ParallelOptions::data_parallel_start_rank>,
        "First DP rank of this node; with --data-parallel-size-local and without --headless the node answers "
        "requests for its own ranks (hybrid load balancing).")
        .Short("dpr")
        .Range(0, kMaxRanks),
    Works("data-parallel-address", Type::kString, "", Into<&ParallelOptions::data_parallel_address>,
          "Host or address of the first node, where all nodes meet; 127.0.0.1 if unset.")
        .Short("dpa"),
    Works("data-parallel-rpc-port", Type::kInt, "", Into<&ParallelOptions::data_parallel_rpc_port>,
          "Port there; 29550 if unset.")
        .Short("dpp")
        .Range(1, kMaxPort),
    Works("data-parallel-hybrid-lb", Type::kBool, "false", Into<&ParallelOptions::data_parallel_hybrid_lb>,
          "Every node answers requests and spreads them over its own ranks.")
        .Short("dph"),
    Works("data-parallel-external-lb", Type::kBool, "false",
          Into<&ParallelOptions::data_parallel_external_lb>,
          "Every DP rank has a server of its own; something in front of them spreads requests.")
        .Short("dpe"),
    NotBuilt("data-parallel-multi-port-external-lb", Type::kTrue, "false",
             "Start one cadre serve a rank with --data-parallel-rank and --port.")
        .Short("dpm")
        .To(Into<&ParallelOptions::data_parallel_multi_port_external_lb>),
    Works("master-addr", Type::kString, "127.0.0.1", Into<&ParallelOptions::master_addr>,
          "With --nnodes: host or address of node 0, where all nodes meet."),
    Works("master-port", Type::kInt, "29501", Into<&ParallelOptions::master_port>,
          "With --nnodes: port there.")
        .Range(0, kMaxPort),
    Works("nnodes", Type::kInt, "1", Into<&ParallelOptions::nnodes>,
          "Nodes over which all ranks are spread, each a contiguous range.")
        .Short("n")
        .Range(1, kMaxRanks),
    Works("node-rank", Type::kInt, "0", Into<&ParallelOptions::node_rank>,
          "This node's number; nodes other than 0 answer no requests.")
        .Short("r")
        .Range(0, kMaxRanks),
    Works("enable-eplb", Type::kBool, "false", Into<&ParallelOptions::enable_eplb>,
          "Balance experts over the ranks: copies of experts, placed by load. See docs/eplb.md."),
    Works("eplb-config", Type::kJson, "{}", TakenByMembers,
          "How: a JSON object; its members are listed under \"Members of JSON options\"."),
    Forward("num-redundant-experts", Type::kInt, "eplb-config.num_redundant_experts"),
    Forward("eplb-window-size", Type::kInt, "eplb-config.window_size"),
    Forward("eplb-step-interval", Type::kInt, "eplb-config.step_interval"),
    Forward("eplb-log-balancedness", Type::kBool, "eplb-config.log_balancedness"),
    NotBuilt("enable-elastic-ep", Type::kBool, "false", kLaterFaults)
        .To(Into<&ParallelOptions::enable_elastic_ep>),
    NotBuilt("elastic-ep-max-dp-size", Type::kInt, "", kLaterFaults),
    NotBuilt("enable-fault-tolerance", Type::kBool, "false", kLaterFaults)
        .To(Into<&ParallelOptions::enable_fault_tolerance>),
    NotBuilt("fault-tolerance-config", Type::kJson, "{}", kLaterFaults),
    NoEffect("enable-ep-weight-filter", Type::kBool, "false",
             "A rank always reads only its own experts from disk."),
    NoEffect("enable-dbo", Type::kBool, "false", kNoBatchHalves),
    NoEffect("ubatch-size", Type::kInt, "0", kNoBatchHalves),
    NoEffect("dbo-decode-token-threshold", Type::kInt, "32", kNoBatchHalves),
    NoEffect("dbo-prefill-token-threshold", Type::kInt, "512", kNoBatchHalves),
    NoEffect("dp-sync-interval", Type::kInt, "16", "Ranks agree before every step."),
    NoEffect("disable-nccl-for-dp-synchronization", Type::kBool, "", kOneTransport),
    NoEffect("disable-custom-all-reduce", Type::kBool, "false", kOneTransport),
    NoEffect("enable-shm-tensor-arena", Type::kBool, "false", kOneTransport),
    NoEffect("enable-batch-sharded-sampling", Type::kBool, "",
             "Each DP replica samples its own requests on one rank."),
    NotBuilt("enable-hc-sp", Type::kBool, "false",
             "Sequence parallelism of hyper-connections is not built; leave the flag out."),
    NotBuilt("numa-bind", Type::kBool, "false", kLaterNuma),
    NotBuilt("numa-bind-nodes", Type::kStrings, "", kLaterNuma),
    NotBuilt("numa-bind-cpus", Type::kStrings, "", kLaterNuma),
    NoEffect("device-ids", Type::kString, "", "This build runs on the CPU."),
    NoEffect("max-parallel-loading-workers", Type::kInt, "", "Ranks load in parallel, each its own shard."),
    NoEffect("ray-workers-use-nsight", Type::kBool, "false", kNoRay),
    NotBuilt("worker-cls", Type::kString, "auto", kNoPython),
    NotBuilt("worker-extension-cls", Type::kString, "", kNoPython),
    NoEffect("data-parallel-supervisor-port", Type::kInt, "9256", "cadre serve watches its ranks itself.")
        .Range(0, kMaxPort),
    NoEffect("dp-supervisor-probe-interval-s", Type::kFloat, "5.0", "cadre serve watches its ranks itself."),
    NoEffect("dp-supervisor-probe-timeout-s", Type::kFloat, "5.0", "cadre serve watches its ranks itself."),
    NoEffect("dp-supervisor-probe-failure-threshold", Type::kInt, "3",
             "cadre serve watches its ranks itself."),
};

constexpr JsonKey kKeys[] = {
    {"eplb-config", "window_size", Type::kInt, "1000", "Engine steps whose loads are summed for a plan.",
     Into<&EplbOptions::window_size>, "", 1},
    {"eplb-config", "step_interval", Type::kInt, "3000",
     "Engine steps between two rebalances; the first comes after a quarter of them.",
     Into<&EplbOptions::step_interval>, "", 1},
    {"eplb-config", "num_redundant_experts", Type::kInt, "0",
     "Copies of experts beyond one each, over all ranks together (not per rank).",
     Into<&EplbOptions::num_redundant_experts>, "", 0},
    {"eplb-config", "log_balancedness", Type::kBool, "false", "Log mean load over largest load.",
     Into<&EplbOptions::log_balancedness>},
    {"eplb-config", "log_balancedness_interval", Type::kInt, "1", "Steps between two such lines.",
     Into<&EplbOptions::log_balancedness_interval>, "", 1},
    {"eplb-config", "use_async", Type::kBool, "true",
     "Move weights in the background, between steps; false: one blocking rebalance.",
     Into<&EplbOptions::use_async>},
    {"eplb-config", "policy", Type::kString, "default", "How the plan is made.", Into<&EplbOptions::policy>,
     "default"},
    {"eplb-config", "replica_routing", Type::kString, "hash",
     "Which copy a row takes: hash (of its position, token and layer), or nearest (one in the own host, "
     "where "
     "there is one).",
     Into<&EplbOptions::replica_routing>, "hash,nearest"},
    {"eplb-config", "num_spare_slots", Type::kInt, "",
     "Places of each rank that experts are copied into before they are used; default: as many as it has "
     "slots in a layer.",
     Into<&EplbOptions::num_spare_slots>, "", 1},
    {"eplb-config", "communicator", Type::kString, "",
     "No effect here: weights travel over shared memory and the fabric.", Into<&EplbOptions::communicator>,
     "torch_nccl,torch_gloo,torch_xccl,nixl,pynccl"},
    {"eplb-config", "enable_migration_batching", Type::kBool, "false",
     "No effect here: layers move together while spare places last."},
    {"fault-tolerance-config", "engine_recovery_timeout_sec", Type::kInt, "120",
     "Longest wait for a recovery.", nullptr, "", 1},
    {"kv-transfer-config", "kv_connector", Type::kString, "",
     "NixlConnector: prefill's answer says where the blocks lie. P2pNcclConnector: the request id does.",
     Into<&KvTransferOptions::connector>},
    {"kv-transfer-config", "kv_role", Type::kString, "",
     "kv_producer (prefill), kv_consumer (decode) or kv_both. Whole requests are served by each.",
     Into<&KvTransferOptions::role>, "kv_producer,kv_consumer,kv_both"},
    {"kv-transfer-config", "engine_id", Type::kString, "", "This instance's id; random if unset.",
     Into<&KvTransferOptions::engine_id>},
    {"kv-transfer-config", "kv_load_failure_policy", Type::kString, "recompute",
     "Where blocks cannot be fetched: recompute the prompt here, or fail the request.",
     Into<&KvTransferOptions::load_failure_policy>, "recompute,fail"},
    {"kv-transfer-config", "kv_ip", Type::kString, "127.0.0.1",
     "P2pNcclConnector: the address under which this instance is in request ids.",
     Into<&KvTransferOptions::ip>},
    {"kv-transfer-config", "kv_port", Type::kInt, "14579", "P2pNcclConnector: the port there, + rank.",
     Into<&KvTransferOptions::port>, "", 1},
    {"kv-transfer-config", "kv_connector_extra_config", Type::kJson, "{}",
     "kv_lease_duration (seconds that blocks wait to be fetched, 30), bidirectional (decode holds its "
     "answers' blocks for the next turn, false), max_bytes_per_second (most that a rank sends to "
     "other hosts, no limit), backends (no effect: shared memory and TCP are used).",
     Into<&KvTransferOptions::extra>},
    {"kv-transfer-config", "kv_lease_duration", Type::kFloat, "30",
     "The same as kv_connector_extra_config.kv_lease_duration.", Into<&KvTransferOptions::lease_s>, "", 0.1},
    {"kv-transfer-config", "kv_buffer_device", Type::kString, "cpu",
     "No effect here: blocks lie in the host's memory.", nullptr, "cuda,cpu"},
    {"kv-transfer-config", "kv_buffer_size", Type::kFloat, "1e9",
     "No effect here: blocks are fetched from the KV cache itself.", nullptr, "", 0},
    {"kv-transfer-config", "kv_rank", Type::kInt, "", "No effect here.", nullptr, "", 0},
    {"kv-transfer-config", "kv_parallel_size", Type::kInt, "1", "No effect here.", nullptr, "", 1},
    {"kv-transfer-config", "kv_connector_module_path", Type::kString, "", "Refused: no Python is run."},
    {"kv-transfer-config", "enable_permute_local_kv", Type::kBool, "false",
     "No effect here: blocks are brought into the local layout as they arrive."},
};

}  // namespace

std::vector<Group> ParallelGroups() {
  return {{"ParallelConfig", "Ranks and experts", kParallel}};
}

std::span<const JsonKey> JsonKeys() {
  return kKeys;
}

}  // namespace cadre::config
