// Keys of `cadre rl`: prime-rl's, and three of our own ([cadre]).
#include "config/rl_keys.h"
#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr double kMaxPort = 65535;
constexpr double kMaxRanks = 4096;
constexpr std::string_view kHosts =
    "One command starts one host: run cadre serve on each with scripts/launch_node1.sh and "
    "launch_node2.sh, or see docs/hosts.md for Slurm, and name the first one to the trainer.";
constexpr std::string_view kF32 = "Router weights and logits are summed and kept in f32 here.";

constexpr Setting Key(std::string_view name, Type type, std::string_view fallback, std::string_view help) {
  return Works(name, type, fallback, nullptr, help);
}

constexpr Setting kRun[] = {
    Key("model.name", Type::kString, "",
        "The model of inference, trainer and orchestrator: a folder or hub name."),
    NotBuilt("model.vlm", Type::kJson, "", kNoVision),
    Key("inference_gpu_ids", Type::kJsonList, "[0]",
        "Ranks of inference: as many as the list has ids. DP becomes their number divided by TP."),
    Key("trainer_gpu_ids", Type::kJsonList, "[1]", "Processes of the trainer, one an id."),
    Key("teacher_gpu_ids", Type::kJsonList, "", "Ranks of the teacher; there is none if unset."),
    Key("deployment.num_infer_gpus", Type::kInt, "", "Ranks of inference, by number.").Range(1, kMaxRanks),
    Key("deployment.num_train_gpus", Type::kInt, "", "Processes of the trainer, by number.")
        .Range(0, kMaxRanks),
    Key("deployment.gpus_per_node", Type::kInt, "8",
        "Ranks of a node, where inference.deployment counts nodes.")
        .Range(1, kMaxRanks),
    Key("deployment.type", Type::kString, "single_node", "Where processes run.")
        .Choices("single_node,multi_node")
        .Only("single_node", kHosts),
    NotBuilt("deployment.num_train_nodes", Type::kInt, "", kHosts),
    NotBuilt("deployment.num_infer_nodes", Type::kInt, "", kHosts),
    NotBuilt("deployment.num_infer_replicas", Type::kInt, "1", kHosts),
    NoEffect("deployment.nodes_per_fsdp_group", Type::kInt, "", "It is about several nodes of a trainer."),
    NoEffect("slurm", Type::kJson, "",
             "Processes are started here and now; see docs/hosts.md for one command a host under Slurm."),
    NotBuilt("external_cluster", Type::kJson, "", kHosts),
    Key("output_dir", Type::kString, "outputs", "Folder of logs/ and configs/, and of the trainer's output."),
    NoEffect("clean", Type::kBool, "true",
             "Logs of the same name are replaced; nothing else is deleted here."),
    NoEffect("clean_output_dir", Type::kBool, "false",
             "Logs of the same name are replaced; nothing else is deleted here."),
    Key("dry_run", Type::kBool, "false", "Say what would be started, and stop."),
    Key("dump_config", Type::kString, "",
        "Write one resolved TOML file a process into this folder, and stop."),
    Key("env_vars", Type::kJson, "", "Environment variables of all processes."),
    Key("log.level", Type::kString, "", "What is logged, by all processes."),
    Key("log.file", Type::kBool, "true",
        "Write logs/NAME.stdout for each process; they are shown in any case."),
    NoEffect("log.json_logging", Type::kBool, "false",
             "It reaches trainer and orchestrator; servers log lines."),
    Key("max_model_len", Type::kInt, "", "Longest prompt plus answer.").Range(1),
    Key("tokenizer.name", Type::kString, "", "Another tokenizer than the model's own, for all."),
    Key("tokenizer.chat_template", Type::kString, "", "Another chat template than the model's own."),
    NoEffect("tokenizer.trust_remote_code", Type::kBool, "false", kNoPython),
    Key("trainer", Type::kJson, "", "Any keys: the trainer's own, handed to its command."),
    Key("orchestrator", Type::kJson, "", "Any keys: the orchestrator's own, handed to its command."),
    Key("max_steps", Type::kInt, "", "Handed to trainer and orchestrator."),
    Key("seq_len", Type::kInt, "", "Handed to trainer.model and orchestrator."),
    Key("max_async_level", Type::kInt, "", "Handed to trainer and orchestrator."),
    Key("bench", Type::kBool, "false", "Handed to trainer and orchestrator."),
    Key("ckpt", Type::kJson, "", "Handed to trainer and orchestrator."),
    Key("wandb", Type::kJson, "", "Handed to trainer and orchestrator."),
    Key("weight_broadcast", Type::kJson, "",
        "Handed to trainer and orchestrator. The server takes weights from a folder or over a socket, "
        "whichever a request names."),
    Key("cadre.trainer_command", Type::kStrings, "",
        "The trainer's command, to which @ FILE is added; torchrun with prime_rl.trainer.rl.train if unset."),
    Key("cadre.orchestrator_command", Type::kStrings, "",
        "The orchestrator's command, to which @ FILE is added; orchestrator if unset."),
    Key("cadre.stop_seconds", Type::kInt, "60", "Between SIGTERM and SIGKILL when processes are stopped.")
        .Range(0, 86400),
};

constexpr Setting kInference[] = {
    Key("server.host", Type::kString, "", "Address to listen on; all if unset, 127.0.0.1 with [pd_disagg]."),
    Key("server.port", Type::kInt, "8000", "Port to listen on.").Range(1, kMaxPort),
    NoEffect("server.liveness_timeout_seconds", Type::kFloat, "30",
             "A rank that does not answer is found by its heartbeat."),
    Key("model.name", Type::kString, "", "--model."),
    Key("model.dtype", Type::kString, "auto", "--dtype."),
    Key("model.max_model_len", Type::kHumanIntOrAuto, "", "--max-model-len."),
    Key("model.enforce_eager", Type::kBool, "false", "--enforce-eager."),
    Key("model.trust_remote_code", Type::kBool, "false", "--trust-remote-code."),
    Key("model.chat_template", Type::kString, "", "--chat-template."),
    Key("model.enable_auto_tool_choice", Type::kBool, "false", "--enable-auto-tool-choice."),
    Key("model.tool_call_parser", Type::kString, "hermes",
        "--tool-call-parser, with enable_auto_tool_choice."),
    Key("model.reasoning_parser", Type::kString, "", "--reasoning-parser."),
    Key("model.rope_scaling", Type::kJson, "", "rope_scaling in --hf-overrides."),
    Key("parallel.tp", Type::kInt, "1", "--tensor-parallel-size.").Range(1, kMaxRanks),
    Key("parallel.dp", Type::kInt, "1", "--data-parallel-size; see inference_gpu_ids.").Range(1, kMaxRanks),
    Key("enable_lora", Type::kBool, "false", "--enable-lora."),
    Key("max_loras", Type::kInt, "8", "--max-loras, with enable_lora."),
    Key("max_cpu_loras", Type::kInt, "100", "--max-cpu-loras, with enable_lora."),
    Key("max_lora_rank", Type::kInt, "",
        "--max-lora-rank, with enable_lora; the next of 8, 16, 32, 64, 128, "
        "256, 320, 512."),
    Key("api_server_count", Type::kInt, "1",
        "--api-server-count; 1 serves all ranks, it is not raised to DP. 0 is --headless.")
        .Range(0, 1024),
    NoEffect("weight_broadcast", Type::kJson, "",
             "The server takes weights from a folder or over a socket, whichever a request names."),
    Key("vllm", Type::kJson, "",
        "The newer shape: any flag of cadre serve, with _ or -. Wins over the others."),
    Key("vllm_extra", Type::kJson, "", "The same; wins over vllm."),
    Key("router.type", Type::kString, "",
        "Put cadre router in front, at server.port; the server is at 100 above.")
        .Choices("vllm-router,llm-d"),
    Key("router.policy", Type::kString, "",
        "Its --policy; consistent_hash for vllm-router, cache_aware for llm-d."),
    NoEffect("router", Type::kJson, "", "cadre router's policy cache_aware stands for llm-d's scorers."),
    Key("deployment.type", Type::kString, "single_node", "disaggregated: prefill and decode instances here.")
        .Choices("single_node,multi_node,disaggregated")
        .Only("single_node,disaggregated", kHosts),
    Key("deployment.gpus_per_node", Type::kInt, "", "Ranks of a node; deployment.gpus_per_node if unset.")
        .Range(1, kMaxRanks),
    Key("deployment.prefill_nodes_per_replica", Type::kInt, "1", "Each gives a prefill instance its ranks.")
        .Range(1, kMaxRanks),
    Key("deployment.decode_nodes_per_replica", Type::kInt, "1", "The same for decode.").Range(1, kMaxRanks),
    Key("deployment.num_prefill_replicas", Type::kInt, "1", "Prefill instances.").Range(1, kMaxRanks),
    Key("deployment.num_decode_replicas", Type::kInt, "1", "Decode instances.").Range(1, kMaxRanks),
    Key("deployment.prefill_port", Type::kInt, "8100", "First port of prefill instances.").Range(1, kMaxPort),
    Key("deployment.decode_port", Type::kInt, "8200", "First port of decode instances.").Range(1, kMaxPort),
    Key("deployment.prefill_env_vars", Type::kJson, "", "Environment variables of prefill instances."),
    Key("deployment.decode_env_vars", Type::kJson, "", "Environment variables of decode instances."),
    Key("deployment.prefill_vllm_overrides", Type::kJson, "", "As vllm_extra, for prefill instances."),
    Key("deployment.decode_vllm_overrides", Type::kJson, "", "As vllm_extra, for decode instances."),
    NotBuilt("deployment.num_nodes", Type::kInt, "1", kHosts),
    NotBuilt("kv_cache_offload", Type::kJson, "", "KV blocks stay in memory; leave the table out."),
    NoEffect("enable_fp32_lm_head", Type::kBool, "true", kF32),
    NoEffect("enable_fp32_router_logits", Type::kBool, "true", kF32),
    NoEffect("use_deep_gemm", Type::kBool, "false", kNoGpuKernels),
    Key("env_vars", Type::kJson, "", "Environment variables of the server."),
    Key("log.level", Type::kString, "", "What the server logs."),
    NoEffect("log.json_logging", Type::kBool, "false", "Servers log lines."),
    NoEffect("slurm", Type::kJson, "", "Processes are started here and now; see docs/hosts.md."),
    Key("output_dir", Type::kString, "", "As output_dir of the run."),
    Key("dry_run", Type::kBool, "false", "As dry_run of the run."),
    Key("dump_config", Type::kString, "", "As dump_config of the run."),
};

constexpr Setting kPairs[] = {
    Key("pd_disagg.enabled", Type::kBool, "false",
        "Prefill and decode instances, and cadre router before them."),
    Key("pd_disagg.prefill_gpu_ids", Type::kJsonList, "[]",
        "Ranks of prefill, one an id. With expert parallelism they are one instance and EP is their number; "
        "else each prefill_tp of them are one."),
    Key("pd_disagg.decode_gpu_ids", Type::kJsonList, "[]", "The same for decode."),
    Key("pd_disagg.prefill_tp", Type::kInt, "", "TP of prefill; inference.parallel.tp if unset.")
        .Range(1, kMaxRanks),
    Key("pd_disagg.decode_tp", Type::kInt, "", "TP of decode; inference.parallel.tp if unset.")
        .Range(1, kMaxRanks),
    Key("pd_disagg.prefill_all2all_backend", Type::kString, "",
        "--all2all-backend of prefill; inference.all2all_backend if unset."),
    Key("pd_disagg.decode_all2all_backend", Type::kString, "", "The same for decode."),
    Key("pd_disagg.host", Type::kString, "", "Of all of them; inference.server.host or 127.0.0.1 if unset."),
    Key("pd_disagg.proxy_port", Type::kInt, "8000", "Port of cadre router.").Range(1, kMaxPort),
    Key("pd_disagg.prefill_port", Type::kInt, "8100", "Of the first prefill instance; + i.")
        .Range(1, kMaxPort),
    Key("pd_disagg.decode_port", Type::kInt, "8200", "Of the first decode instance; + i.").Range(1, kMaxPort),
    Key("pd_disagg.prefill_kv_port", Type::kInt, "14579",
        "P2pNcclConnector: of the first prefill rank; + rank.")
        .Range(1, kMaxPort),
    Key("pd_disagg.decode_kv_port", Type::kInt, "14580",
        "P2pNcclConnector: of the first decode rank; + rank.")
        .Range(1, kMaxPort),
    Key("pd_disagg.kv_connector", Type::kString, "P2pNcclConnector", "How pairs meet.")
        .Choices("P2pNcclConnector,NixlConnector"),
    NoEffect("pd_disagg.kv_send_type", Type::kString, "PUT_ASYNC",
             "Decode fetches layer by layer; there is one way to send.")
        .Choices("PUT_ASYNC,PUT,GET"),
    Key("pd_disagg.auto_ports", Type::kBool, "true", "Take the next free ports from these on."),
};

}  // namespace

std::vector<Group> RlGroups() {
  return {{"Run", "The run", kRun},
          {"Inference", "[inference], and [teacher_inference]; the top of the file for `cadre inference`",
           kInference},
          {"Pairs", "Prefill and decode", kPairs}};
}

}  // namespace cadre::config
