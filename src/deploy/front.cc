#include "deploy/front.h"

#include "deploy/acceptors.h"
#include "deploy/api_front.h"

namespace cadre::deploy {
namespace {

// The default: this process answers.
class OwnFront : public Front {
 public:
  explicit OwnFront(std::unique_ptr<ApiFront> front) : front_(std::move(front)) {}

  std::string address() const override { return front_->address(); }
  void SetStarting(const std::string& why) override { front_->SetStarting(why); }
  Status Serve(Deployment& deployment) override {
    front_->Serve(deployment.engine());
    return {};
  }
  int failed_fd() const override { return -1; }
  Status Outcome() const override { return {}; }
  void Fail(const Error&) override {}  // the deployment's own engine says it
  void Stop(TimePoint deadline) override { front_->Stop(deadline); }

 private:
  std::unique_ptr<ApiFront> front_;
};

}  // namespace

Result<std::unique_ptr<Front>> OpenFront(const config::ServeOptions& options, const ModelSetup& setup) {
  const int count = options.engine.parallel.api_server_count.value_or(1);
  if (count > 1) return OpenAcceptors(options, count);
  CADRE_ASSIGN(auto front, ApiFront::Open(options, setup));
  return std::make_unique<OwnFront>(std::move(front));
}

}  // namespace cadre::deploy
