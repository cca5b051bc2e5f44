import { loadConfig } from '../../config.ts';
import { examine } from '../../doctor/doctor.ts';
import { failed, type Finding, type Status } from '../../doctor/finding.ts';
import { ConfigError } from '../../errors.ts';
import type { DoctorOptions } from '../doctor.ts';
import { inEnvironment } from '../environment.ts';

export async function doctor(options: DoctorOptions): Promise<void> {
  try {
    loadConfig();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const advice = 'Mend these variables (README lists what each takes), and look again.';
    const finding = { check: 'configuration', ...failed(error.message, advice) };
    print([finding], options);
    process.exitCode = 1;
    return;
  }
  await inEnvironment(
    { ...options, needs: 'none', onlyLooks: true },
    async ({ closer, ...subject }) => {
      const findings = await examine(subject, closer);
      print(findings, options);
      return isHealthy(findings) ? 0 : 1;
    },
  );
}

const isHealthy = (findings: readonly Finding[]) =>
  findings.every(({ status }) => status !== 'failed');

const MARKS: Record<Status, string> = {
  ok: 'ok      ',
  warning: 'warning ',
  failed: 'FAILED  ',
  skipped: '-       ',
};

function print(findings: readonly Finding[], { json }: DoctorOptions): void {
  if (json) {
    console.log(JSON.stringify({ ok: isHealthy(findings), findings }));
    return;
  }
  const width = Math.max(...findings.map(({ check }) => check.length));
  for (const { check, status, found, advice } of findings) {
    console.log(`${MARKS[status]}${check.padEnd(width)}  ${found}`);
    if (advice !== undefined) console.log(`${' '.repeat(MARKS.ok.length + width)}  → ${advice}`);
  }
  const count = (status: Status) => findings.filter((each) => each.status === status).length;
  console.log(`\n${count('failed')} failed, ${count('warning')} warnings`);
}
