/**
 * A process of the benchmark: does what `broker bench` orders, one order at a time, and answers. It uses the client as any application
 * does, with prepared requests and `pollInto`, which allocate nothing for a message.
 */
import type {
  BenchAnswer,
  BenchArguments,
  BenchOrder,
  BenchOrderName,
  BenchPlan,
  BenchReply,
} from '../protocol/bench.js'
import { attach } from './attach.js'
import { BenchLink } from './bench-link.js'
import { oneSided, postAndPoll } from './bench-one-sided.js'
import { ping, pong } from './bench-ping-pong.js'
import { attachOften, holdSessions, OwnJob } from './bench-sessions.js'
import { drain, stream } from './bench-stream.js'
import type { Session } from './session.js'

let plan: BenchPlan | undefined
let session: Session | undefined
let opened: BenchLink | undefined
let ownJob: OwnJob | undefined
const held: Session[] = []

function present<Thing>(thing: Thing | undefined, what: string): Thing {
  if (thing === undefined) throw new Error(`ordered to work without ${what}`)
  return thing
}

const link = (): BenchLink => present(opened, 'a link')

type Handlers = { readonly [Name in BenchOrderName]: (given: BenchArguments<Name>) => Promise<BenchAnswer<Name>> }

const handlers: Handlers = {
  async attach(given) {
    plan = given
    const { runtimeDirectory: runtimeDir, job, jobKey, name } = given
    session = await attach({ runtimeDir, job, jobKey, name })
    return { processId: process.pid }
  },
  async open(given) {
    opened = await BenchLink.open(present(session, 'a session'), given)
    return opened.offer
  },
  async connect(offer) {
    await link().connect(offer)
    return null
  },
  ping: ({ opcode, ...window }) => ping(link(), opcode, window),
  async pong({ opcode }) {
    await pong(link(), opcode)
    return null
  },
  async stream(window) {
    stream(link(), window)
    return null
  },
  drain: async (window) => drain(link(), window),
  'one-sided': async ({ opcode, outstanding, ...window }) => oneSided(link(), opcode, outstanding, window),
  'post-poll': async ({ list, ...window }) => postAndPoll(link(), list, window),
  async close() {
    await opened?.close()
    opened = undefined
    return null
  },
  'attach-often': ({ warmUp, count }) => attachOften(present(plan, 'a plan'), warmUp, count),
  async 'open-job'({ job, jobKey, queuePairs }) {
    ownJob = await OwnJob.open(present(plan, 'a plan'), job, jobKey, queuePairs)
    return { addresses: ownJob.addresses }
  },
  'connect-job': async ({ addresses, atOnce }) => {
    return { eachMs: await present(ownJob, 'a job of its own').connect(addresses, atOnce) }
  },
  async 'close-job'() {
    await ownJob?.close()
    ownJob = undefined
    return null
  },
  async 'hold-sessions'({ job, jobKey, sessions }) {
    held.push(...(await holdSessions(present(plan, 'a plan'), job, jobKey, sessions)))
    return null
  },
  async 'hold-queue-pairs'({ queuePairs }) {
    const owner = present(held[0], 'a session held')
    const sendCq = await owner.createCompletionQueue({ capacity: 64 })
    for (let count = 0; count < queuePairs; count++) await owner.createQueuePair({ sendCq })
    return null
  },
  async finish() {
    await Promise.all([...held, session].map((one) => one?.close()))
    return null
  },
}

async function obey({ order, arguments: given }: BenchOrder): Promise<BenchReply> {
  try {
    const handler = handlers[order] as (given: unknown) => Promise<unknown>
    return { order, answer: await handler(given) }
  } catch (error) {
    return { order, failure: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}

let last: Promise<void> = Promise.resolve()
process.on('message', (message: BenchOrder) => {
  last = last.then(async () => {
    const reply = await obey(message)
    process.send?.(reply, () => {
      if (message.order === 'finish') process.disconnect()
    })
  })
})
// A benchmark that is gone leaves nobody behind.
process.on('disconnect', () => process.exit())
