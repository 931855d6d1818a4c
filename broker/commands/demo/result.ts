/** What an operator wants to see after the demo. */
import { basename } from 'node:path'
import { byteText, grouped } from '../output.js'
import type { DemoResult } from './settings.js'

export function printResult(result: DemoResult): void {
  process.stdout.write(`${resultLines(result).join('\n')}\n`)
}

export function resultLines(result: DemoResult): string[] {
  const processes = result.processesPerNode
  const row = (name: string, value: string, note = ''): string =>
    `  ${name.padEnd(35)}${value.padStart(7)}  ${note}`.trimEnd()
  const moved = `${byteText(result.bytes)} in ${grouped(result.messages)} messages, ${result.seconds} s`
  const verdicts = Object.entries(result.verdictsOfKilled).map(([name, count]) => `${count} ${name}`)
  return [
    `alpha and beta, ${processes} processes on each, ${grouped(result.remotePairs)} pairs of remote processes`,
    '',
    row('processes', grouped(result.processes)),
    row(
      'queue pairs of processes',
      grouped(result.queuePairs),
      `${grouped(result.remotePairs)} connected on each node`,
    ),
    row('queue pairs of the provider, a node', grouped(result.sharedQueuePairsPerNode), 'shared by all of them'),
    row('without sharing, a node', grouped(result.unsharedQueuePairsPerNode), '(N-1)*P^2: N nodes, P processes'),
    '',
    `  moved    ${moved}`,
    `  file     ${basename(result.file)}, ${byteText(result.fileByteLength)}, sha256 ${result.fileSha256.slice(0, 16)}…`,
    '           written into remote memory, read back by others',
    `  counter  ${grouped(result.counter)} after fetch-and-add by all processes`,
    `  killed   one process; its peers' requests: ${verdicts.join(', ')}`,
    `           ${result.survivorsFinished} of ${result.processes - 1} others finished`,
    '',
    ...(result.verified ? ['verified'] : ['NOT VERIFIED', ...result.failures.map((failure) => `  ${failure}`)]),
    '',
    ...(result.directory === null ? [] : [`kept: ${result.directory}`]),
    "look further: 'broker start', then 'broker inspect', 'broker inspect qps',",
    "'broker inspect shared-qps --details', 'broker inspect counters --watch'",
  ]
}
