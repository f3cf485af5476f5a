// A worker of Gopher in Node, made from the protos alone; docs/workers-in-any-language.md tells the protocol.
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { handlers } from "./handlers.mjs";

const { GOPHER_SERVER = "127.0.0.1:50051", GOPHER_NAMESPACE = "default", GOPHER_CONCURRENCY = "10" } = process.env;
const includeDirs = [fileURLToPath(new URL("../../proto", import.meta.url))];
const options = { includeDirs, longs: String, oneofs: true, defaults: true };
const { WorkerService } = grpc.loadPackageDefinition(loader.loadSync("gopher/v1/worker_service.proto", options)).gopher.v1;
const addresses = GOPHER_SERVER.split(","), slots = Number(GOPHER_CONCURRENCY);
const who = { namespace: GOPHER_NAMESPACE, queues: { default: 1 }, types: Object.keys(handlers), slots, version: "node" };
const held = new Map(); // what was assigned, until its outcome is confirmed or its lease is lost
let stream, leaseMs, isDraining, resumeToken = "", safeUntil = 0, extendAt = 0, extendedAt = [];
const keyOf = ({ jobId, token }) => `${jobId} ${token}`;
const leases = () => Array.from(held.values(), ({ lease }) => lease);
const giveCredit = (jobs) => jobs > 0 && !isDraining && stream.write({ credit: { jobs } });
const leaveIfEmpty = () => isDraining && !held.size && stream.write({ leave: {} });
const letGo = (lease) => held.delete(keyOf(lease)) && (giveCredit(1), leaveIfEmpty());
const settle = (job, outcome) => {
  job.outcome = { settle: { lease: job.lease, ...outcome } };
  job.isLost ? letGo(job.lease) : stream.write(job.outcome);
};
const lose = (lease) => {
  const job = held.get(keyOf(lease));
  job?.stop.abort();
  job?.outcome ? letGo(lease) : job && (job.isLost = true);
};
const failure = ({ message, reason = "HANDLER_RAISED", isFinal }) => {
  const value = Buffer.from(`\n${String.fromCharCode(reason.length)}${reason}`); // an ErrorInfo: its first field, the reason
  const details = [{ type_url: "type.googleapis.com/google.rpc.ErrorInfo", value }];
  return { failure: { code: grpc.status.UNKNOWN, message, details }, isFinal };
};
const hear = {
  welcome: (welcome) => {
    [resumeToken, leaseMs] = [welcome.resumeToken, welcome.lease.seconds * 1000 + welcome.lease.nanos / 1e6];
    safeUntil = performance.now() + leaseMs;
    for (const { outcome } of held.values()) outcome && stream.write(outcome);
    giveCredit(slots - held.size), leaveIfEmpty();
  },
  assignment: async ({ lease, type, payload, attempt }) => {
    const job = { lease, said: 0, stop: new AbortController() }, { signal } = job.stop;
    held.set(keyOf(lease), job);
    const report = (said) => stream.write({ report: { lease, number: ++job.said, ...said } });
    try {
      const result = await handlers[type](JSON.parse(payload), { id: lease.jobId, attempt, signal, report });
      settle(job, { result: Buffer.from(JSON.stringify(result ?? null)) });
    } catch (error) {
      settle(job, signal.aborted ? { cancelled: {} } : failure(error));
    }
  },
  extended: () => (safeUntil = extendedAt.shift() + leaseMs),
  cancel: ({ lease }) => held.get(keyOf(lease))?.stop.abort(),
  leaseLost: ({ lease }) => lose(lease),
  settled: ({ lease, error }) => {
    const refused = error?.code === grpc.status.INVALID_ARGUMENT && held.get(keyOf(lease));
    refused ? settle(refused, { failure: error, isFinal: true }) : letGo(lease);
  },
  drain: () => ((isDraining = true), leaveIfEmpty()),
};
setInterval(() => {
  const now = performance.now();
  if (safeUntil && now > safeUntil - leaseMs / 10) { // nobody has answered: what runs here may soon run elsewhere
    safeUntil = 0;
    leases().forEach(lose), stream.cancel();
  } else if (safeUntil && now > extendAt) {
    extendAt = now + leaseMs / 3;
    extendedAt.push(now), stream.write({ extend: { leases: leases() } });
  }
}, 20).unref();
process.on("SIGTERM", hear.drain);
for (let at = 0, code; code !== grpc.status.OK; await sleep(50 + 100 * Math.random())) {
  const client = new WorkerService(addresses[at++ % addresses.length], grpc.credentials.createInsecure());
  stream = client.Connect().on("data", (frame) => hear[frame.frame]?.(frame[frame.frame])).on("error", () => {});
  stream.write({ hello: { ...who, resumeToken, stream: at, leases: leases() } }), (extendedAt = []), (extendAt = 0);
  code = await new Promise((end) => stream.on("status", (status) => end(status.code)));
  client.close();
}
