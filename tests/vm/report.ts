/** What a run found. */
export interface Conformance {
  readonly passed: number
  readonly failed: number
  /** Number of the case and why it does not apply. */
  readonly skipped: readonly string[]
  readonly failures: readonly string[]
}

export interface Report {
  readonly provider: 'verbs'
  readonly device: string
  /** Why nothing ran. */
  readonly skipped?: string
  readonly kernel?: string
  readonly conformance: Conformance | null
  /** What the probes answered, by name. */
  readonly probes?: Readonly<Record<string, unknown>>
  readonly differentialPrograms: number
  readonly mismatches: number
  readonly demo: Readonly<Record<string, unknown>> | null
  /** The B cases: engines turned by hand over the device. */
  readonly engineCases?: Conformance
  /** Two machines on one wire. */
  readonly twoNodes?: Readonly<Record<string, unknown>>
  /** Messages to and fro with a program that is not ours. */
  readonly interoperation?: Readonly<Record<string, unknown>>
  /** What was measured when things went wrong on purpose; what did not hold is among the failures. */
  readonly faults?: Readonly<Record<string, unknown>>
  /** Parts that did not come to their end, and why; what must hold and did not. */
  readonly failures: readonly string[]
  /** How long each part took. */
  readonly seconds: Readonly<Record<string, number>>
}

const empty = { conformance: null, differentialPrograms: 0, mismatches: 0, demo: null, failures: [], seconds: {} }

export const skippedReport = (reason: string): Report => ({
  provider: 'verbs',
  device: 'none',
  skipped: reason,
  ...empty,
})

export const emptyReport = (device: string, kernel: string): Report => ({ provider: 'verbs', device, kernel, ...empty })

export const readReport = (text: string): Report => JSON.parse(text) as Report

export function succeeded(report: Report): boolean {
  if (report.skipped !== undefined) return true
  const suites = [report.conformance, report.engineCases ?? null]
  const isConforming = suites.every((suite) => suite === null || (suite.failed === 0 && suite.passed > 0))
  const isDemoVerified = report.demo === null || (report.demo.verified === true && report.demo.kernelAgrees === true)
  return isConforming && isDemoVerified && report.mismatches === 0 && report.failures.length === 0
}

export function describeReport(report: Report): string {
  if (report.skipped !== undefined) return `verbs: skipped, ${report.skipped}`
  const { conformance, engineCases, demo } = report
  const lines = [`verbs on ${report.device}, kernel ${report.kernel}`]
  if (conformance !== null) {
    lines.push(`  conformance: ${conformance.passed} passed, ${conformance.failed} failed`)
    lines.push(...conformance.failures.map((failure) => `    failed  ${failure}`))
    lines.push(...conformance.skipped.map((reason) => `    skipped ${reason}`))
  }
  if (engineCases !== undefined) {
    lines.push(`  engine cases: ${engineCases.passed} passed, ${engineCases.failed} failed`)
    lines.push(...engineCases.failures.map((failure) => `    failed  ${failure}`))
    lines.push(...engineCases.skipped.map((reason) => `    skipped ${reason}`))
  }
  lines.push(`  differential: ${report.differentialPrograms} programs, ${report.mismatches} mismatches`)
  lines.push(`  demo: ${demo === null ? 'did not run' : JSON.stringify(demo)}`)
  lines.push(...report.failures.map((failure) => `  failed: ${failure}`))
  return lines.join('\n')
}
