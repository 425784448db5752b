// Makes one call of each kind through @grpc/grpc-js and prints what came back, as JSON.
// Usage: node caller.js ENDPOINT PROTOS GOOGLE_PROTOS, the key in TOLLHOUSE_API_KEY.
"use strict";
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [endpoint, protos, googleProtos] = process.argv.slice(2);
const definition = loader.loadSync(["tollhouse/v1/generation.proto", "google/rpc/error_details.proto", "google/rpc/status.proto"], {
  includeDirs: [protos, googleProtos],
  longs: Number,
  defaults: false,
});
const packages = grpc.loadPackageDefinition(definition);
const client = new packages.tollhouse.v1.GenerationService(endpoint, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.TOLLHOUSE_API_KEY}`);

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg==";
const user = (...parts) => ({ contents: [{ role: "user", parts }] });
const weather = {
  name: "get_weather",
  parameters: { type: "OBJECT", properties: { city: { type: "STRING" } }, required: ["city"] },
};
const REQUESTS = {
  text: { tier: "flash", ...user({ text: "Why do tolls exist?" }) },
  "image in": {
    tier: "flash",
    ...user({ text: "What is this?" }, { inlineData: { mimeType: "image/png", data: Buffer.from(PNG, "base64") } }),
  },
  "image out": { tier: "flash-image", ...user({ text: "A toll house" }) },
  tools: { tier: "flash", ...user({ text: "Weather in Oslo?" }), tools: [{ functionDeclarations: [weather] }] },
  "structured output": {
    tier: "flash",
    ...user({ text: "Describe a car" }),
    generationConfig: {
      responseMimeType: "application/json",
      responseSchema: { type: "OBJECT", properties: { colour: { type: "STRING" } } },
    },
  },
};

const deadline = () => ({ deadline: Date.now() + 20000 });

const unary = (method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, metadata, deadline(), (error, answer) => (error ? reject(error) : resolve(answer))),
  );

const stream = (request) =>
  new Promise((resolve, reject) => {
    const chunks = [];
    const call = client.StreamGenerateContent(request, metadata, deadline());
    call.on("data", (chunk) => chunks.push(chunk));
    call.on("error", reject);
    call.on("end", () => resolve(chunks));
  });

const partsOf = (message) =>
  (message.candidates || []).flatMap((candidate) => (candidate.content && candidate.content.parts) || []);

const describe = (messages) => {
  const parts = messages.flatMap(partsOf);
  const image = parts.find((part) => part.inlineData);
  const outcome = messages[messages.length - 1].outcome;
  return {
    messages: messages.length,
    text: parts.filter((part) => part.text && !part.thought).map((part) => part.text).join(""),
    functions: parts.filter((part) => part.functionCall).map((part) => part.functionCall.name),
    image: image ? image.inlineData.data.subarray(1, 4).toString() : null,
    cost: outcome.cost,
    project: outcome.receipt.project,
  };
};

async function main() {
  const report = { unary: {}, stream: {} };
  for (const [kind, request] of Object.entries(REQUESTS)) {
    report.unary[kind] = describe([await unary("GenerateContent", request)]);
    report.stream[kind] = describe(await stream(request));
  }
  const item = (text) => ({ content: { parts: [{ text }] } });
  const embedded = await unary("EmbedContent", { tier: "embedding", requests: [item("toll"), item("house")] });
  report.embeddings = embedded.embeddings.map((embedding) => embedding.values.length);
  report.error = await unary("GenerateContent", { tier: "no-such-tier", ...user({ text: "x" }) }).catch((error) => ({
    code: error.code,
    details: reasons(error),
  }));
  process.stdout.write(JSON.stringify(report));
}

function reasons(error) {
  const Status = lookup("google.rpc.Status");
  const Info = lookup("google.rpc.ErrorInfo");
  const status = Status(error.metadata.get("grpc-status-details-bin")[0]);
  return status.details.filter((any) => any.type_url.endsWith("ErrorInfo")).map((any) => Info(any.value).reason);
}

// The loader gives descriptors; protobufjs, on which it is built, decodes by them.
function lookup(name) {
  const protobuf = require("protobufjs");
  const root = new protobuf.Root();
  root.resolvePath = (_, target) => `${googleProtos}/${target}`;
  const type = root.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"]).lookupType(name);
  return (bytes) => type.toObject(type.decode(bytes));
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
