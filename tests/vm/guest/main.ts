/** What runs in the virtual machine: each part adds to the report, which is written after every part. */
import { writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { runProbes } from '../probes/probes.js'
import { emptyReport, type Report } from '../report.js'
import { isWished, readWishes, type Wishes } from '../wishes.js'
import { serveAgent } from './agent-link.js'
import { runConformance } from './conformance.js'
import { demonstrate } from './demo.js'
import { compareProviders } from './differential-crew.js'
import { runEngineCases } from './engine-cases.js'
import { provokeFaults } from './faults.js'
import { interoperate } from './interoperation.js'
import { joinMachines } from './two-nodes.js'

const folder = process.argv[2]!
const wishes = readWishes(folder)
let report: Report = emptyReport('rxe0', release())
const save = (): void => writeFileSync(join(folder, 'report.json'), JSON.stringify(report))
type Parts = Readonly<Record<string, (wishes: Wishes) => Promise<Partial<Report>>>>
const partsOfOne: Parts = {
  conformance: runConformance,
  demo: demonstrate,
  differential: compareProviders,
  interoperation: interoperate,
  faults: provokeFaults,
  probes: runProbes,
  'engine-cases': runEngineCases,
}
const partsOfTwo: Readonly<Record<'alpha' | 'beta', Parts>> = {
  alpha: { 'two-nodes': joinMachines },
  beta: { 'two-nodes': () => serveAgent('beta').then(() => ({})) },
}

save()
const parts = wishes.role === undefined ? partsOfOne : partsOfTwo[wishes.role]
for (const [name, part] of Object.entries(parts)) {
  if (!isWished(wishes, name)) continue
  console.log(`== ${name}`)
  const startMs = performance.now()
  try {
    report = { ...report, ...(await part(wishes)) }
  } catch (error) {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
    console.log(message)
    report = { ...report, failures: [...report.failures, `${name}: ${message.split('\n', 1)[0]}`] }
  }
  const seconds = Math.round((performance.now() - startMs) / 100) / 10
  report = { ...report, seconds: { ...report.seconds, [name]: seconds } }
  console.log(`-- ${name}: ${seconds} s`)
  save()
}
