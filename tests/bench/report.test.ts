import test from 'ava'
import { drawPictures } from '../../broker/commands/bench/plot.js'
import type { BenchRow } from '../../broker/commands/bench/settings.js'
import { TablePrinter } from '../../broker/commands/bench/table.js'
import { comparedRow, markdown, svg, textTable } from './peers/report.js'
import { median, works } from './peers/work.js'

const latency = works.find(({ name }) => name === 'latency')!
const rate = works.find(({ name }) => name === 'rate')!
const peers = { ucx: 5, libfabric: 6, zeromq: 57, net: null, tcp: null }

test('the ratio to the best peer says how much better ours is, whichever way better points', (t) => {
  t.is(comparedRow(latency, 10, peers).ratioToBest, 0.5)
  t.is(comparedRow(rate, 114, peers).ratioToBest, 2)
  const nobody = { ucx: null, libfabric: null, zeromq: null, net: null, tcp: null }
  t.is(comparedRow(rate, 1, nobody).ratioToBest, null)
})

test('the comparison is a table of Markdown, a text of 80 columns, and a picture', (t) => {
  const rows = [comparedRow(latency, 10, peers), comparedRow(rate, 114, peers)]
  const text = markdown(rows, { machine: 'here', rounds: 5, command: 'npm run bench:peers', peers: [] })
  t.regex(text, /^\| latency \| 64 \| 1 \| us \| 10\.0 \| 5\.00 \| 6\.00 \| 57\.0 \| - \| - \| 0\.50 \|$/m)
  t.deepEqual(
    textTable(rows).filter((line) => line.length > 80),
    [],
  )
  t.regex(svg(rows), /^<svg[\s\S]*latency: 64 B[\s\S]*<\/svg>\s*$/)
})

test('the median is the middle, or between both', (t) => {
  t.is(median([3, 1, 2]), 2)
  t.is(median([4, 1, 2, 3]), 2.5)
})

test('a table has one head, and says when others disturbed it', (t) => {
  const lines: string[] = []
  const printer = new TablePrinter((line) => lines.push(line))
  const values = { p50Us: 12.34, p99Us: 50, p999Us: 80.5, samples: 1000 }
  const row: BenchRow = {
    test: 'latency',
    work: 'send',
    bytes: 64,
    pairs: 1,
    place: 'remote',
    values,
    foreignCpuPercent: 5,
    coresNsApart: 40,
  }
  const rows = [row, { ...row, bytes: 128, foreignCpuPercent: 40, coresNsApart: 180 }]
  for (const one of rows) printer.row(one)
  printer.end(rows)
  t.is(lines.filter((line) => line.includes('p99.9 us')).length, 1)
  t.true(lines.some((line) => / send +64 +12\.34 +50\.00 +80\.50 +1000$/.test(line)))
  t.regex(lines.at(-2)!, /^disturbed: others used up to 40 % /)
  t.regex(lines.at(-1)!, /^cores 0 and 1: 40 to 180 ns apart; near ones, of one cache, would be faster$/)
})

test('curves with the same name in two pictures are told apart', (t) => {
  const curve = {
    name: 'send',
    points: [
      [8, 1],
      [64, 2],
    ] as const,
  }
  const both = drawPictures([
    { title: 'Latency', x: 'bytes', y: 'us', curves: [curve] },
    { title: 'Rate', x: 'bytes', y: 'M/s', curves: [curve] },
  ])
  t.is(both.match(/>send</g)?.length, 2)
})

test('a single result is a point, not a failure', (t) => {
  const picture = { title: 'Rate', x: 'bytes', y: 'M/s', curves: [{ name: 'send', points: [[64, 4]] as const }] }
  t.regex(drawPictures([picture]), /^<svg[\s\S]*<\/svg>\s*$/)
})
