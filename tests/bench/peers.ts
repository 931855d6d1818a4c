/**
 * The same work through the brokers and through what users would pick instead, interleaved in one run.
 *
 * What was measured while a virtual machine's host had put the two cores far apart (`core-distance.ts`) is measured again, up to `--tries`
 * times: else a round compares luck. Medians and ratios are printed and saved as Markdown and SVG. Peers that are not there are named and left
 * out.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CoreDistance, FAR_NS } from '../../broker/commands/bench/core-distance.js'
import { machineNow } from '../../broker/commands/bench/run.js'
import { refuse, toolOptions } from '../support/tool-options.js'
import { libfabric } from './peers/libfabric.js'
import { net } from './peers/net.js'
import { measureOurs } from './peers/ours.js'
import { type ComparedRow, comparedRow, markdown, svg, textTable } from './peers/report.js'
import { tcp } from './peers/tcp.js'
import { ucx } from './peers/ucx.js'
import { median, type Peer, type PeerName, peerNames, type Work, works } from './peers/work.js'
import { zeromq } from './peers/zeromq.js'

const help = `npm run bench:peers -- [options] [-- options of broker bench, for our side]

  --rounds <n>      rounds of which the medians are told (5)
  --duration <ms>   of one measurement (1000)
  --tries <n>       most of one measurement, while the cores are far apart (4)
  --only <works>    ${works.map(({ name }) => name).join(',')}
  --peers <names>   ${peerNames.join(',')} (those that are there)
  --out <folder>    for peers.md and peers.svg (.cache/bench)
  --json            last line as JSON; everything else goes to the other output`

const { values: options, positionals } = toolOptions(help, {
  options: {
    rounds: { type: 'string', default: '5' },
    duration: { type: 'string', default: '1000' },
    only: { type: 'string' },
    peers: { type: 'string' },
    tries: { type: 'string', default: '4' },
    out: { type: 'string', default: fileURLToPath(new URL('../../.cache/bench', import.meta.url)) },
    json: { type: 'boolean', default: false },
  },
  allowPositionals: true,
})

const rounds = Number(options.rounds)
const durationMs = Number(options.duration)
const tries = Number(options.tries)
if (!(rounds >= 1) || !(tries >= 1) || !(durationMs >= 100))
  refuse(help, '--rounds, --tries and --duration are 1, 1 and 100 at least')

/** Those that were asked for, of those there are. */
function named<Named extends { readonly name: string }>(
  all: readonly Named[],
  asked: string | undefined,
): readonly Named[] {
  const names = asked?.split(',') ?? all.map(({ name }) => name)
  const unknown = names.find((name) => !all.some((one) => one.name === name))
  if (unknown !== undefined) refuse(help, `there is no '${unknown}'`)
  return all.filter(({ name }) => names.includes(name))
}

const chosen = named(works, options.only)
const asked = named([ucx, libfabric, zeromq, net, tcp], options.peers)

const say = (line: string): void => void process[options.json ? 'stderr' : 'stdout'].write(`${line}\n`)

function presentPeers(): Peer[] {
  return asked.filter((peer) => {
    const why = peer.missing()
    if (why !== undefined) say(`without ${peer.name}: ${why}`)
    return why === undefined
  })
}

/** Measurements, those that were repeated, and those that never had near cores. */
const tally = { measured: 0, repeated: 0, far: 0 }

/** With near cores, if that comes about in a few tries; else the last try counts. */
async function measureNear(
  distance: CoreDistance | undefined,
  measure: () => Promise<number | undefined>,
): Promise<number | undefined> {
  tally.measured++
  for (let left = tries; ; left--) {
    const value = await measure()
    const nsApart = (await distance?.sinceLast()) ?? null
    const isFar = nsApart !== null && nsApart > FAR_NS
    if (!isFar || left <= 1) {
      if (isFar) tally.far++
      return value
    }
    tally.repeated++
  }
}

/** One round of one work: ours, then each peer. */
async function round(
  work: Work,
  peers: readonly Peer[],
  found: Map<'ours' | PeerName, number[]>,
  distance: CoreDistance | undefined,
): Promise<void> {
  const keep = (name: 'ours' | PeerName, value: number | undefined): void => {
    if (value !== undefined) found.set(name, [...(found.get(name) ?? []), value])
  }
  keep('ours', await measureNear(distance, () => measureOurs(work, durationMs, positionals)))
  for (const peer of peers) keep(peer.name, await measureNear(distance, () => peer.measure(work, durationMs)))
}

async function compare(peers: readonly Peer[]): Promise<ComparedRow[]> {
  const distance = await CoreDistance.ofFirstTwo()
  const found = new Map(chosen.map((work) => [work, new Map<'ours' | PeerName, number[]>()]))
  for (let number = 1; number <= rounds; number++) {
    for (const work of chosen) await round(work, peers, found.get(work)!, distance)
    say(`round ${number} of ${rounds}, load ${machineNow().load.toFixed(2)}`)
  }
  await distance?.end()
  return chosen.map((work) => {
    const medians = found.get(work)!
    const medianOf = (name: PeerName): number | null => (medians.has(name) ? median(medians.get(name)!) : null)
    const peersFound = Object.fromEntries(peerNames.map((name) => [name, medianOf(name)]))
    return comparedRow(work, median(medians.get('ours')!), peersFound as Record<PeerName, number | null>)
  })
}

const { cores, processor, node, load } = machineNow()
const machine = `${cores} cores, ${processor}, Node ${node}, load ${load.toFixed(2)} at the start`
say(machine)
const peers = presentPeers()
const rows = await compare(peers)
if (tally.repeated > 0)
  say(`of ${tally.measured} measurements ${tally.repeated} were repeated for far cores, ${tally.far} stayed so`)
const command = ['npm run bench:peers --', ...process.argv.slice(2)].join(' ')
mkdirSync(options.out, { recursive: true })
writeFileSync(join(options.out, 'peers.md'), markdown(rows, { machine, rounds, command, peers }))
writeFileSync(join(options.out, 'peers.svg'), svg(rows))
for (const line of textTable(rows)) say(line)
say(`saved in ${options.out}: peers.md, peers.svg`)
if (options.json) process.stdout.write(`${JSON.stringify({ rows })}\n`)
