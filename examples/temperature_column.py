import ocd_bench


@ocd_bench.hookimpl
def ocd_bench_report_columns(cells):
    found = [cell["detail"]["temperature"] for cell in cells if "temperature" in cell["detail"]]
    if found:
        return {"temperature": f"{sum(found) / len(found):.2f}"}
