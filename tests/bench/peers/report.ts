/** The comparison as text, as Markdown and as curves. */
import { drawBars } from '../../../broker/commands/bench/plot.js'
import { isSmallerBetter, type Peer, type PeerName, peerNames, type Work } from './work.js'

export interface ComparedRow {
  readonly work: string
  readonly bytes: number
  readonly pairs: number
  readonly unit: Work['unit']
  readonly ours: number
  readonly peers: Readonly<Record<PeerName, number | null>>
  /** Ours against the best of the peers; above 1 ours is better. Null: no peer did it. */
  readonly ratioToBest: number | null
}

export function comparedRow(work: Work, ours: number, peers: Readonly<Record<PeerName, number | null>>): ComparedRow {
  const found = Object.values(peers).filter((value) => value !== null)
  const best = isSmallerBetter(work) ? Math.min(...found) : Math.max(...found)
  const ratio = isSmallerBetter(work) ? best / ours : ours / best
  const { name, bytes, pairs, unit } = work
  return { work: name, bytes, pairs, unit, ours, peers, ratioToBest: found.length === 0 ? null : ratio }
}

const numberText = (value: number | null): string => {
  if (value === null) return '-'
  if (value >= 100) return value.toFixed(0)
  return value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

const WIDTHS = [15, 8, 6, 5, 9] as const
const PEER_WIDTH = 10

export function textTable(rows: readonly ComparedRow[]): string[] {
  const line = (first: readonly string[], more: readonly string[]): string =>
    first.map((text, index) => (index === 0 ? text.padEnd(WIDTHS[0]) : text.padStart(WIDTHS[index]!))).join('') +
    more.map((text) => text.padStart(PEER_WIDTH)).join('')
  // Ours, five peers and a ratio do not fit beside each other in 80 columns: two lines for each work.
  const head = line(['work', 'bytes', 'pairs', 'unit', 'ours'], ['to best'])
  return [
    head,
    ...rows.flatMap((row) => [
      line(
        [row.work, String(row.bytes), String(row.pairs), row.unit, numberText(row.ours)],
        [row.ratioToBest === null ? '-' : `${row.ratioToBest.toFixed(2)} x`],
      ),
      `  ${peerNames.map((name) => `${name} ${numberText(row.peers[name])}`).join('  ')}`,
    ]),
  ]
}

export function markdown(
  rows: readonly ComparedRow[],
  about: {
    readonly machine: string
    readonly rounds: number
    readonly command: string
    readonly peers: readonly Peer[]
  },
): string {
  const cells = (texts: readonly string[]): string => `| ${texts.join(' | ')} |`
  return [
    '# Compared with peers',
    '',
    `${about.machine}. Medians of ${about.rounds} interleaved rounds. Ratio: above 1 ours is better than the best peer.`,
    '',
    `    ${about.command}`,
    '',
    cells(['work', 'bytes', 'pairs', 'unit', 'ours', ...peerNames, 'ratio to best']),
    cells(Array.from({ length: 6 + peerNames.length }, () => '---')),
    ...rows.map((row) =>
      cells([
        ...[row.work, String(row.bytes), String(row.pairs), row.unit, numberText(row.ours)],
        ...peerNames.map((name) => numberText(row.peers[name])),
        row.ratioToBest === null ? '-' : row.ratioToBest.toFixed(2),
      ]),
    ),
    '',
    ...about.peers.map(({ name, how }) => `- ${name}: ${how}`),
    '',
  ].join('\n')
}

export function svg(rows: readonly ComparedRow[]): string {
  return drawBars(
    rows.map((row) => ({
      title: `${row.work}: ${row.bytes} B, pairs ${row.pairs}`,
      unit: row.unit,
      bars: [['ours', row.ours] as const, ...peerNames.map((name) => [name, row.peers[name]] as const)].flatMap(
        ([name, value]) => (value === null ? [] : [{ name, value }]),
      ),
    })),
  )
}
