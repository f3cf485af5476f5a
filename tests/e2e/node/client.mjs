// A client in another language: made from the protos alone, by @grpc/grpc-js. It submits a job and watches it to its end, submits
// another and cancels it, and has one refused. What it saw goes to stdout as one JSON document; the test beside it judges.
//
//   node client.mjs HOST:PORT TYPE_THAT_RETURNS_ITS_PAYLOAD TYPE_THAT_WAITS PAYLOAD_OF_THE_LATTER

import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, quickType, slowType, slowPayload] = process.argv.slice(2);
const protos = fileURLToPath(new URL("../../../proto", import.meta.url));
const definition = loader.loadSync("gopher/v1/job_service.proto", {
  includeDirs: [protos],
  enums: String,
  longs: String,
  defaults: true,
});
const { JobService } = grpc.loadPackageDefinition(definition).gopher.v1;
const jobs = new JobService(address, grpc.credentials.createInsecure());

function deadline() {
  return { deadline: Date.now() + 20_000 };
}

function call(method, request) {
  return new Promise((resolve, reject) => {
    jobs[method](request, deadline(), (error, response) => (error ? reject(error) : resolve(response)));
  });
}

/** Follows a job to its end; `onState` is told each state as it comes. */
async function watch(jobId, onState = () => {}) {
  const states = [];
  let job;
  for await (const { event } of jobs.WatchJob({ jobId }, deadline())) {
    states.push(event.state);
    job = event.job ?? job;
    onState(event.state);
  }
  return { states, job };
}

function submit(type, payload) {
  return call("SubmitJob", { job: { type, payload: Buffer.from(JSON.stringify(payload)) } });
}

const quick = await submit(quickType, { number: 9007199254740993n.toString(), list: [] });
const completed = await watch(quick.jobId);

const slow = await submit(slowType, slowPayload);
let isCancelAsked = false;
const cancelled = await watch(slow.jobId, (state) => {
  if (state === "JOB_STATE_PROCESSING" && !isCancelAsked) {
    isCancelAsked = true;
    call("CancelJob", { jobId: slow.jobId, reason: "no longer wanted" });
  }
});

const refused = await submit("not a type", {}).then(
  () => ({ code: grpc.status.OK }),
  (error) => ({ code: error.code, details: error.details, hasDetails: error.metadata.get("grpc-status-details-bin").length === 1 }),
);

jobs.close();
console.log(
  JSON.stringify({
    quick: { states: completed.states, result: JSON.parse(completed.job.result.toString()) },
    slow: { states: cancelled.states, reason: cancelled.job.cancelReason },
    refused,
  }),
);
